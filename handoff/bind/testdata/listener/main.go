// Listener binds, says where, and ends.
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	if len(os.Args) > 1 {
		return
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(ln.Addr())
	ln.Close()
}
