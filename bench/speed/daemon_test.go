package speed

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// daemon serves what it is given as fd 3, whoever gave it: so it can be started with
// nothing in between, to see how long that takes. With "silent" it does not say that
// it is ready.
func daemon(args []string) int {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	f := os.NewFile(3, "listener")
	ln, err := net.FileListener(f)
	if err != nil {
		fmt.Fprintln(os.Stderr, "no listener:", err)
		return 1
	}
	f.Close()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getpid()) })}
	go srv.Serve(ln)
	if len(args) == 0 {
		sayReady()
	}
	<-stop.Done()
	ctx, end := context.WithTimeout(context.Background(), 5*time.Second)
	defer end()
	if srv.Shutdown(ctx) != nil {
		return 1
	}
	return 0
}

func sayReady() {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer c.Close()
	c.Write([]byte("READY=1"))
}
