package speed

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// bindTimes is what a daemon tells of its own calls: how long each kept its thread.
type bindTimes struct {
	Bind, Listen time.Duration   // at the address that it serves
	Other        []time.Duration // binds of another port of TCP, which is nobody's endpoint
	Free         []time.Duration // binds of port 0
}

const (
	// othersPerStart is how many binds that are not for an endpoint each daemon does.
	othersPerStart = 5
	backlog        = 128
)

// The manners of a binder.
const (
	// manyOpen has a thousand descriptors: whoever looks for one of them looks at all.
	manyOpen = "many"
	// firstWide has the first generation bind all addresses. Those after it bind one of
	// them, which would be another group: each gets a listener like the first one's in
	// the place of its socket.
	firstWide = "wide"
)

// binder is a daemon that knows nothing of gapless. It binds args[1] by itself, measures
// that, tells the socket at args[0] of it, and serves until it is killed. args[2] is none
// of the service's addresses, args[3] its manner.
func binder(args []string) int {
	if err := runBinder(args); err != nil {
		fmt.Fprintln(os.Stderr, "binder:", err)
		return 1
	}
	return 0
}

func runBinder(args []string) error {
	at, other := netip.MustParseAddrPort(args[1]), netip.MustParseAddrPort(args[2])
	switch manner := args[3]; {
	case manner == manyOpen:
		if err := openMany(); err != nil {
			return err
		}
	case manner == firstWide && os.Getenv("GAPLESS_GENERATION") == "1":
		at = netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())
	}
	times, ln, err := bindTimed(at, other)
	if err != nil {
		return err
	}
	if err := tell(args[0], times); err != nil {
		return err
	}
	return http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getpid()) }))
}

func openMany() error {
	for range 1000 {
		if _, err := unix.Dup(0); err != nil {
			return err
		}
	}
	return nil
}

// bindTimed asks for the others last, when the holder knows a socket of this daemon's,
// which it then looks for at every bind.
func bindTimed(at, other netip.AddrPort) (t bindTimes, ln net.Listener, err error) {
	fd, took, err := bound(at)
	if err != nil {
		return t, nil, err
	}
	t.Bind = took
	begin := time.Now()
	if err := unix.Listen(fd, backlog); err != nil {
		return t, nil, err
	}
	t.Listen = time.Since(begin)
	for range othersPerStart {
		for addr, all := range map[netip.AddrPort]*[]time.Duration{other: &t.Other, netip.AddrPortFrom(at.Addr(), 0): &t.Free} {
			fd, took, err := bound(addr)
			if err != nil {
				return t, nil, err
			}
			unix.Close(fd)
			*all = append(*all, took)
		}
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close() // the listener has a duplicate
	ln, err = net.FileListener(f)
	return t, ln, err
}

// bound is a socket, and how long its bind(2) took by CLOCK_MONOTONIC.
func bound(addr netip.AddrPort) (int, time.Duration, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, 0, err
	}
	// As servers do: else connections of the generation before are in the way.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, 0, err
	}
	sa := &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	begin := time.Now()
	err = unix.Bind(fd, sa)
	return fd, time.Since(begin), err
}

func tell(path string, t bindTimes) error {
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write(b)
	return err
}
