package conns

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/leaktest"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("CONNS_TEST_ROLE"); role != "" {
		os.Exit(runRole(role))
	}
	os.Exit(leaktest.Run(m, 0))
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func openDiag(t testing.TB) *Diag {
	t.Helper()
	d, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// listen opens a plain TCP listener; set is applied before listen.
func listen(t testing.TB, network, addr string, set func(fd int) error) *net.TCPListener {
	t.Helper()
	cfg := net.ListenConfig{Control: controlled(set)}
	cfg.SetMultipathTCP(false)
	ln, err := cfg.Listen(context.Background(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

func portOf(ln net.Listener) uint16 { return uint16(ln.Addr().(*net.TCPAddr).Port) }

func dial(t testing.TB, network, addr string) *net.TCPConn {
	t.Helper()
	dialer := net.Dialer{Timeout: 10 * time.Second}
	c, err := dialer.DialContext(context.Background(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func accept(t testing.TB, ln *net.TCPListener) *net.TCPConn {
	t.Helper()
	if err := ln.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// server is the connection of the listener's side that c is the client of, as a question for Lookup.
func server(c *net.TCPConn) Conn {
	return Conn{Local: c.RemoteAddr().(*net.TCPAddr).AddrPort(), Remote: c.LocalAddr().(*net.TCPAddr).AddrPort()}
}

func dump(t testing.TB, d *Diag, q Query) []Conn {
	t.Helper()
	found, err := d.Dump(deadline(t), q)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// one dumps the port and fails unless exactly one socket in one of the states is there.
func one(t testing.TB, d *Diag, port uint16, states States) Conn {
	t.Helper()
	found := dump(t, d, Query{Ports: []uint16{port}, States: states, Info: true})
	if len(found) != 1 {
		t.Fatalf("port %d has %d sockets in %s, want 1: %+v", port, len(found), states, found)
	}
	return found[0]
}

// eventually repeats the question until it is answered with yes; what the kernel does on the other side of a loopback
// connection may come a moment after the system call that causes it.
func eventually(t testing.TB, what string, yes func() bool) {
	t.Helper()
	ctx := deadline(t)
	for !yes() {
		if ctx.Err() != nil {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// inodeOf returns the inode of a socket without taking it out of the poller, as File would.
func inodeOf(t testing.TB, c syscall.Conn) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := onFD(c, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func onFD(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return controlled(f)("", "", raw)
}

// controlled makes f the Control function of a net.ListenConfig.
func controlled(f func(fd int) error) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		if f == nil {
			return nil
		}
		var failed error
		err := raw.Control(func(fd uintptr) { failed = f(int(fd)) })
		return errors.Join(err, failed)
	}
}
