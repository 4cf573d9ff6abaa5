package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestKeepAliveReuses(t *testing.T) {
	s := serve(t, func(conn *net.TCPConn, _ int) {
		answering(conn, func(int) string { return okKeep })
	})
	r := mustRun(t, Load{Kind: KeepAlive, Addr: s.addr, Clients: 3, Max: 60})
	wantAllOK(t, r, 60)
	if n := s.accepted(); n > 3 || r.Reconnects != 0 {
		t.Errorf("%d connections of 3 clients, %d reconnects", n, r.Reconnects)
	}
}

// TestConstantRateTakesTurns keeps all connections in use, also at a rate that
// one could serve.
func TestConstantRateTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used [4]atomic.Int64
		dial := pipes(func(conn net.Conn, n int) {
			answering(conn, func(int) string { used[n].Add(1); return okKeep })
		})
		r := mustRun(t, Load{Kind: KeepAlive, Dial: dial, Clients: 4, Rate: 100, Max: 40})
		wantAllOK(t, r, 40)
		for i := range used {
			// Who is first in the queue at the start is chance.
			if n := used[i].Load(); n < 8 || n > 12 {
				t.Errorf("connection %d had %d of 40 requests, want about 10", i, n)
			}
		}
	})
}

func TestAnnouncedCloseIsNoFailure(t *testing.T) {
	s := serve(t, func(conn *net.TCPConn, _ int) {
		answering(conn, func(i int) string { return []string{okKeep, okKeep, okClose, ""}[i] })
	})
	r := mustRun(t, Load{Kind: KeepAlive, Addr: s.addr, Clients: 1, Max: 12})
	wantAllOK(t, r, 12)
	if n := s.accepted(); n != 4 || r.Reconnects != 0 {
		t.Errorf("%d connections for 12 requests, 3 each; %d reconnects", n, r.Reconnects)
	}
}

// watched is a Dial of addr for one client, and a Check that first lets the
// server go on and then returns when the idle connection has something to say:
// its end, or bytes.
type watched struct {
	addr     string
	conn     *net.TCPConn
	answered chan struct{}
}

func (w *watched) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", w.addr)
	w.conn, _ = conn.(*net.TCPConn)
	return conn, err
}

func (w *watched) check(int, http.Header, []byte) error {
	w.answered <- struct{}{}
	raw, err := w.conn.SyscallConn()
	if err != nil {
		return err
	}
	// Poll takes nothing from the socket, not even its error.
	var ready int
	polled := raw.Control(func(fd uintptr) {
		err = unix.EINTR
		for errors.Is(err, unix.EINTR) {
			ready, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		}
	})
	if ready == 0 {
		return errors.Join(polled, err, errors.New("the server did nothing"))
	}
	return nil
}

func TestWhatHappensToIdleConnections(t *testing.T) {
	for _, test := range []struct {
		name  string
		after func(conn *net.TCPConn) // the first answer
		want  Result
	}{
		{"closed", func(conn *net.TCPConn) { conn.Close() }, Result{OK: 3, Reconnects: 2}},
		{"reset", reset, Result{OK: 3, IdleResets: 2}},
		{"timed out with 408", func(conn *net.TCPConn) {
			io.WriteString(conn, "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
		}, Result{OK: 3, Reconnects: 2}},
		{"bytes that nobody asked for", func(conn *net.TCPConn) { io.WriteString(conn, okKeep) },
			Result{OK: 2, Failures: map[Class]int{Wrong: 1}, OnReused: map[Class]int{Wrong: 1}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &watched{answered: make(chan struct{})}
			s := serve(t, func(conn *net.TCPConn, _ int) {
				answering(conn, func(int) string {
					io.WriteString(conn, okKeep)
					<-w.answered
					test.after(conn)
					return ""
				})
			})
			w.addr = s.addr
			r := mustRun(t, Load{Kind: KeepAlive, Dial: w.dial, Check: w.check, Clients: 1, Max: 3})
			if r.OK != test.want.OK || r.Reconnects != test.want.Reconnects || r.IdleResets != test.want.IdleResets ||
				fmt.Sprint(r.Failures, r.OnReused) != fmt.Sprint(test.want.Failures, test.want.OnReused) {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// TestLossOnReusedConnection closes when the second request has been read:
// http.Transport would repeat it and nobody would know.
func TestLossOnReusedConnection(t *testing.T) {
	for want, end := range map[Class]func(*net.TCPConn){
		EOF:         func(conn *net.TCPConn) { conn.Close() },
		ResetBefore: reset,
		ResetAfter:  func(conn *net.TCPConn) { io.WriteString(conn, okKeep[:20]); reset(conn) },
		Short:       func(conn *net.TCPConn) { io.WriteString(conn, okKeep[:20]); conn.Close() },
	} {
		t.Run(string(want), func(t *testing.T) {
			var requests atomic.Int64
			s := serve(t, func(conn *net.TCPConn, _ int) {
				answering(conn, func(i int) string {
					requests.Add(1)
					if i == 0 {
						return okKeep
					}
					end(conn)
					return ""
				})
			})
			r := mustRun(t, Load{Kind: KeepAlive, Addr: s.addr, Clients: 1, Max: 6})
			if r.OK != 3 || r.Failures[want] != 3 || r.OnReused[want] != 3 || requests.Load() != 6 {
				t.Errorf("ok %d, failures %v, on reused %v, the server had %d requests", r.OK, r.Failures, r.OnReused, requests.Load())
			}
		})
	}
}

// TestIdleForLongerThanTheTimeout: the deadline of a request is not that of the
// connection.
func TestIdleForLongerThanTheTimeout(t *testing.T) {
	s := serve(t, func(conn *net.TCPConn, _ int) {
		answering(conn, func(int) string { return okKeep })
	})
	r := mustRun(t, Load{Kind: KeepAlive, Addr: s.addr, Clients: 1, Max: 2, Timeout: 400 * time.Millisecond, Think: 500 * time.Millisecond})
	wantAllOK(t, r, 2)
	if s.accepted() != 1 || r.IdleResets != 0 {
		t.Errorf("%d connections, %d idle resets; want 1 and 0", s.accepted(), r.IdleResets)
	}
}

func TestIdleCloseWithoutDescriptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := pipes(func(conn net.Conn, _ int) {
			answering(conn, func(i int) string {
				if i == 1 {
					io.WriteString(conn, okKeep)
					return ""
				}
				return okKeep
			})
		})
		r := mustRun(t, Load{Kind: KeepAlive, Dial: dial, Clients: 1, Max: 6, Think: time.Second})
		wantAllOK(t, r, 6)
		if r.Reconnects != 2 {
			t.Errorf("%d reconnects, want 2", r.Reconnects)
		}
	})
}
