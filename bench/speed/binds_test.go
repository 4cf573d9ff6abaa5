package speed

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// bindTimes are how long system calls took, in milliseconds.
type bindTimes struct {
	Bind   samples // of the address at which it is to serve
	Listen samples
	Any    samples // bind to whatever port is free, as clients do
}

// binds is a daemon that binds its address again and again, as it were new each time,
// writes down how long that took, and serves.
func binds(addr, file string, rounds int) error {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	var t bindTimes
	for range rounds {
		fd, err := t.listen(at)
		if err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
		if err := t.any(); err != nil {
			return err
		}
	}
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getpid()) }))
}

func (t *bindTimes) listen(at netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	t.Bind.time(func() { err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}) })
	if err != nil {
		return -1, fmt.Errorf("can't bind: %w", err)
	}
	t.Listen.time(func() { err = unix.Listen(fd, 511) })
	return fd, err
}

func (t *bindTimes) any() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	t.Any.time(func() { err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}) })
	return err
}

func bindsMain(args []string) int {
	var rounds int
	if _, err := fmt.Sscan(args[2], &rounds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := binds(args[0], args[1], rounds); err != nil {
		fmt.Fprintln(os.Stderr, "daemon:", err)
		return 1
	}
	return 0
}

// readBindTimes waits for them.
func readBindTimes(file string, until <-chan struct{}) (t bindTimes, err error) {
	for {
		text, err := os.ReadFile(file)
		if err == nil {
			return t, json.Unmarshal(text, &t)
		}
		select {
		case <-until:
			return t, err
		case <-time.After(5 * time.Millisecond): // between two looks
		}
	}
}
