// Command plain is a server as the shortest of all introductions writes it: it takes
// nothing from whoever starts it, and a signal ends it at once.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Generation", os.Getenv("GAPLESS_GENERATION"))
		fmt.Fprintln(w, "ok")
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
