package bench

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// echoing hides the connection's type: io.Copy would splice, and keep pipes for
// the next time that look like leaked descriptors.
func echoing(conn *net.TCPConn, _ int) {
	io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
}

func TestEchoKeepsItsConnections(t *testing.T) {
	s := serve(t, echoing)
	r := mustRun(t, Load{Kind: Echo, Addr: s.addr, Clients: 3, Max: 60, Think: time.Nanosecond})
	wantAllOK(t, r, 60)
	if n := s.accepted(); n > 3 || r.Reconnects != 0 {
		t.Errorf("%d connections of 3 clients, %d reconnects", n, r.Reconnects)
	}
}

func TestEchoWrongByte(t *testing.T) {
	s := serve(t, func(conn *net.TCPConn, _ int) {
		buf := make([]byte, maxBlock)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			buf[n-1] ^= 1
			conn.Write(buf[:n])
		}
	})
	wantOnly(t, mustRun(t, Load{Kind: Echo, Addr: s.addr, Clients: 2, Max: 4}), Wrong, 4)
}

func TestEchoByteTooMany(t *testing.T) {
	s := serve(t, func(conn *net.TCPConn, i int) {
		buf := make([]byte, maxBlock)
		n, _ := conn.Read(buf)
		conn.Write(append(buf[:n], 0))
		echoing(conn, i)
	})
	r := mustRun(t, Load{Kind: Echo, Addr: s.addr, Clients: 1, Max: 2})
	if r.Failures[Wrong] == 0 || len(r.Failures) != 1 {
		t.Errorf("failures %v, want wrong", r.Failures)
	}
}

// TestEchoClosedWithBytesOutstanding cuts connections within blocks, once
// before any byte has come back and once after some have.
func TestEchoClosedWithBytesOutstanding(t *testing.T) {
	for _, test := range []struct {
		back int
		want Class
	}{{0, EOF}, {1, Short}} {
		synctest.Test(t, func(t *testing.T) {
			dial := pipes(func(conn net.Conn, _ int) {
				buf := make([]byte, 1)
				conn.Read(buf)
				conn.Write(buf[:test.back])
			})
			wantOnly(t, mustRun(t, Load{Kind: Echo, Dial: dial, Clients: 1, Max: 3}), test.want, 3)
		})
	}
}

func TestEchoReset(t *testing.T) {
	for back, want := range map[int]Class{0: ResetBefore, 1: ResetAfter} {
		s := serve(t, func(conn *net.TCPConn, _ int) {
			buf := make([]byte, 1)
			io.ReadFull(conn, buf)
			conn.Write(buf[:back])
			reset(conn)
		})
		r := mustRun(t, Load{Kind: Echo, Addr: s.addr, Clients: 1, Max: 3})
		wantOnly(t, r, want, 3)
	}
}

// TestEchoClosedBetweenBlocks closes when a connection has been quiet for
// 5 ms, as a server that drains does: nothing is lost.
func TestEchoClosedBetweenBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := pipes(func(conn net.Conn, _ int) {
			buf := make([]byte, 4096)
			for {
				conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				n, err := conn.Read(buf)
				if errors.Is(err, os.ErrDeadlineExceeded) || err != nil {
					return
				}
				conn.Write(buf[:n])
			}
		})
		r := mustRun(t, Load{Kind: Echo, Dial: dial, Clients: 2, Max: 10})
		wantAllOK(t, r, 10)
		if r.Reconnects != 8 {
			t.Errorf("%d reconnects, want 8: before every block but the first of each client", r.Reconnects)
		}
	})
}

// TestEchoIdleReset: no byte was under way, but the dialogue is broken.
func TestEchoIdleReset(t *testing.T) {
	s := serve(t, func(conn *net.TCPConn, _ int) {
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		echoing(conn, 0)
		reset(conn)
	})
	r := mustRun(t, Load{Kind: Echo, Addr: s.addr, Clients: 1, Max: 2, Think: 500 * time.Millisecond})
	if r.Failures[ResetAfter] != 1 || r.OnReused[ResetAfter] != 1 || r.IdleResets != 0 {
		t.Errorf("failures %v, on reused %v, idle resets %d", r.Failures, r.OnReused, r.IdleResets)
	}
}

func TestEchoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := pipes(func(conn net.Conn, _ int) { io.Copy(io.Discard, conn) })
		wantOnly(t, mustRun(t, Load{Kind: Echo, Dial: dial, Clients: 1, Max: 2}), Timeout, 2)
	})
}

// TestEchoFailureFreesTheWriter: with a wrong byte the verdict stands, though
// the server no longer reads.
func TestEchoFailureFreesTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		dial := pipes(func(conn net.Conn, _ int) {
			buf := make([]byte, 1)
			conn.Read(buf)
			conn.Write([]byte{^buf[0]})
			<-release
		})
		r := mustRun(t, Load{Kind: Echo, Dial: dial, Clients: 1, Max: 1})
		wantOnly(t, r, Wrong, 1)
		if took := r.Finished.Sub(r.Started); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}
