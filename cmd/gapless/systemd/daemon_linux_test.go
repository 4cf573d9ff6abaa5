package systemd

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
)

// daemon behaves as PATH.mode says, which is read at each start:
//
//	serve   HTTP; writes each stop signal to PATH.signals
//	slow    the same, but not before there is PATH.go
//	bad     says so, and ends with 3
//	deaf    serves, and does not hear of a stop; nor does its child
func daemon(path string) int {
	b, err := os.ReadFile(path + ".mode")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	switch mode := string(b); mode {
	case "bad":
		fmt.Fprintln(os.Stderr, "this version is bad")
		return 3
	case "slow":
		for os.IsNotExist(stat(path + ".go")) {
			time.Sleep(10 * time.Millisecond)
		}
	case "deaf":
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		if err := exec.Command("sleep", "1000").Start(); err != nil {
			return 2
		}
	}
	return serve(path)
}

func stat(path string) error {
	_, err := os.Stat(path)
	return err
}

func serve(path string) int {
	listeners, err := activation.Listeners()
	if err != nil || len(listeners) != 1 || listeners[0] == nil {
		fmt.Fprintln(os.Stderr, "no listener", err)
		return 2
	}
	signals := make(chan os.Signal, 16)
	if !signal.Ignored(syscall.SIGTERM) {
		signal.Notify(signals, syscall.SIGTERM)
	}
	server := &http.Server{Handler: http.HandlerFunc(answer)}
	go server.Serve(listeners[0])
	<-signals
	note(path, "TERM")
	server.Shutdown(context.Background())
	select { // its end takes a while, in which another signal would be noticed
	case <-signals:
		note(path, "TERM again")
	case <-time.After(300 * time.Millisecond):
	}
	return 0
}

func answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Generation", os.Getenv("GAPLESS_GENERATION"))
	switch r.URL.Path {
	case "/environment":
		fmt.Fprintln(w, strings.Join(os.Environ(), "\n"))
	case "/pid":
		fmt.Fprint(w, os.Getpid())
	}
}

func note(path, what string) {
	f, err := os.OpenFile(path+".signals", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err == nil {
		fmt.Fprintln(f, what)
		f.Close()
	}
}
