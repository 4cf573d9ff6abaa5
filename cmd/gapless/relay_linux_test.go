package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// TestRelay: clients that are handed over get what is served at the address, from
// another process; this one keeps nothing of them.
func TestRelay(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	server := listen(t)
	old := listen(t) // nobody accepts from it
	const n = relayChunk/256 + 1
	var clients []net.Conn
	var waiting []handoff.File
	for range n {
		c, err := net.Dial("tcp", old.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		clients = append(clients, c)
		waiting = append(waiting, acceptFile(t, old))
	}
	before := len(leaktest.OpenFiles("self"))
	r := relayer{self: "/proc/self/exe", log: zerolog.Nop()}
	if err := r.relay(ctx, server.Addr().String(), waiting); err != nil {
		t.Fatal(err)
	}
	for range clients {
		served, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		served.Write([]byte("hello"))
		served.Close()
	}
	for _, c := range clients {
		if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	}
	if after := len(leaktest.OpenFiles("self")); after > before-n+1 { // a pidfd of the worker's
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// A client that reached one address of several is served there, so that it does not seem
// to be on the loopback if it is not; where nobody serves that, at the public one.
func TestRelayGoesWhereTheClientWent(t *testing.T) {
	server := listenAt(t, "127.0.0.2:0")
	port := server.Addr().(*net.TCPAddr).Port
	loopback := listenAt(t, fmt.Sprintf("127.0.0.1:%d", port))
	for _, c := range []struct {
		reached, to string
		want        net.Listener
	}{
		{"127.0.0.2", "0.0.0.0", server},
		{"127.0.0.2", "::", server},
		{"127.0.0.4", "0.0.0.0", loopback},
		{"127.0.0.2", "127.0.0.1", loopback},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		conn, err := dialFor(ctx, &net.TCPAddr{IP: net.ParseIP(c.reached), Port: 1}, net.JoinHostPort(c.to, fmt.Sprint(port)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := conn.RemoteAddr().String(); got != c.want.Addr().String() {
			t.Errorf("one that reached %s of %s is served at %s, want %s", c.reached, c.to, got, c.want.Addr())
		}
	}
}

func listenAt(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	return l.(*net.TCPListener)
}

func acceptFile(t *testing.T, l *net.TCPListener) handoff.File {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if err := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 3) }); err != nil || fd < 0 {
		t.Fatal(err)
	}
	return handoff.File{Name: "client", FD: fd}
}
