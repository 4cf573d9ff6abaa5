package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// reset makes Close send RST at once.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}

// TestEachFailureHasItsClass has a server misbehave in each way.
func TestEachFailureHasItsClass(t *testing.T) {
	say := func(text string) func(*net.TCPConn, int) {
		return func(conn *net.TCPConn, _ int) {
			answering(conn, func(int) string { io.WriteString(conn, text); io.Copy(io.Discard, conn); return "" })
		}
	}
	sayThenClose := func(text string) func(*net.TCPConn, int) {
		return func(conn *net.TCPConn, _ int) {
			answering(conn, func(int) string { io.WriteString(conn, text); return "" })
		}
	}
	for _, test := range []struct {
		name   string
		want   Class
		handle func(*net.TCPConn, int)
	}{
		{"reset instead of an answer", ResetBefore, func(conn *net.TCPConn, _ int) {
			answering(conn, func(int) string { reset(conn); return "" })
		}},
		{"reset within the body", ResetAfter, func(conn *net.TCPConn, _ int) {
			answering(conn, func(int) string { io.WriteString(conn, okClose[:len(okClose)-2]); reset(conn); return "" })
		}},
		{"reset within the header", ResetAfter, func(conn *net.TCPConn, _ int) {
			answering(conn, func(int) string { io.WriteString(conn, "HTTP/1.1 2"); reset(conn); return "" })
		}},
		{"closed without an answer", EOF, sayThenClose("")},
		{"closed within the body", Short, sayThenClose(okClose[:len(okClose)-1])},
		{"closed before the body", Short, sayThenClose(okClose[:len(okClose)-5])},
		{"closed within the header", Short, sayThenClose("HTTP/1.1 200 OK\r\nContent-Le")},
		{"closed within a chunk", Short, sayThenClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")},
		{"closed before the last chunk", Short, sayThenClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")},
		{"OK after interim answers", "", sayThenClose(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 3) + okClose)},
		{"closed after an interim answer", Short, sayThenClose("HTTP/1.1 100 Continue\r\n\r\n")},
		{"not HTTP", Short, sayThenClose("+PONG\r\n")},
		{"interim answers without end", Short, sayThenClose(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 20) + okClose)},
		{"no answer", Timeout, func(conn *net.TCPConn, _ int) { io.Copy(io.Discard, conn) }},
		{"half an answer", Timeout, say(okClose[:len(okClose)-2])},
		{"wrong status", Wrong, sayThenClose("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")},
		{"longer than announced", Wrong, sayThenClose(okClose + "!")},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, test.handle)
			r := mustRun(t, Load{Kind: PerRequest, Addr: s.addr, Clients: 2, Max: 4, Timeout: shortTimeout})
			if test.want == "" {
				wantAllOK(t, r, 4)
			} else {
				wantOnly(t, r, test.want, 4)
			}
			if n := s.accepted(); n != 4 {
				t.Errorf("the server saw %d connections for 4 requests", n)
			}
			if len(r.OnReused) != 0 {
				t.Errorf("on reused connections: %v", r.OnReused)
			}
			checkListed(t, r)
		})
	}
}

// checkListed checks that each failure has its place in the run, and the first
// ones of each class their error.
func checkListed(t *testing.T, r *Result) {
	t.Helper()
	span, quoted := r.Finished.Sub(r.Started), 0
	for _, f := range r.Listed {
		if f.Begun < 0 || f.At < f.Begun || f.At > span {
			t.Errorf("failure %+v in a run of %v", f, span)
		}
		if f.Error != "" {
			quoted++
		}
	}
	if len(r.Listed) != r.Failed() || quoted != min(r.Failed(), maxExamples) {
		t.Errorf("%d failures listed, %d with errors, of %d", len(r.Listed), quoted, r.Failed())
	}
}

func TestRefused(t *testing.T) {
	// Its port is ours on one address, so nobody listens on it on another.
	s := serve(t, func(*net.TCPConn, int) {})
	_, port, _ := net.SplitHostPort(s.addr)
	r := mustRun(t, Load{Kind: PerRequest, Addr: net.JoinHostPort("127.0.0.77", port), Clients: 1, Max: 3})
	wantOnly(t, r, Refused, 3)
}

func TestDialFailures(t *testing.T) {
	for err, want := range map[error]Class{
		syscall.ECONNREFUSED:     Refused,
		syscall.ECONNRESET:       ResetBefore,
		syscall.ETIMEDOUT:        Timeout,
		context.DeadlineExceeded: Timeout,
		syscall.EADDRNOTAVAIL:    Other,
		syscall.EMFILE:           Other,
		syscall.ENETUNREACH:      Other,
		io.EOF:                   Other,
	} {
		t.Run(err.Error(), func(t *testing.T) {
			dial := func(context.Context) (net.Conn, error) { return nil, fmt.Errorf("dial: %w", err) }
			r := mustRun(t, Load{Kind: PerRequest, Dial: dial, Clients: 1, Max: 2})
			wantOnly(t, r, want, 2)
		})
	}
}

func TestCheckSeesTheWholeAnswer(t *testing.T) {
	body := strings.Repeat("x", 100_000)
	s := serve(t, func(conn *net.TCPConn, _ int) {
		answering(conn, func(int) string {
			return fmt.Sprintf("HTTP/1.1 418 Teapot\r\nContent-Length: %d\r\nX-Kind: pot\r\nConnection: close\r\n\r\n%s", len(body), body)
		})
	})
	check := func(status int, header http.Header, got []byte) error {
		if status != 418 || header.Get("X-Kind") != "pot" || string(got) != body {
			return errors.New("not the teapot")
		}
		return nil
	}
	wantAllOK(t, mustRun(t, Load{Kind: PerRequest, Addr: s.addr, Max: 5, Check: check}), 5)
	no := func(int, http.Header, []byte) error { return errors.New("no tea") }
	wantOnly(t, mustRun(t, Load{Kind: PerRequest, Addr: s.addr, Max: 5, Check: no}), Wrong, 5)
}

// TestLargeBodyIsReadToItsEnd cuts a body behind the part that is kept.
func TestLargeBodyIsReadToItsEnd(t *testing.T) {
	const size = keptBody + 100_000
	for missing, want := range map[int]Class{0: "", 1: Short} {
		s := serve(t, func(conn *net.TCPConn, _ int) {
			answering(conn, func(int) string {
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
				conn.Write(make([]byte, size-missing))
				return ""
			})
		})
		r := mustRun(t, Load{Kind: PerRequest, Addr: s.addr, Max: 1})
		if r.Sent != 1 || r.Failures[want] != min(missing, 1) {
			t.Errorf("%d bytes missing: %v", missing, r.Failures)
		}
	}
}

func TestUnframedAnswersAreCounted(t *testing.T) {
	s := serve(t, func(conn *net.TCPConn, _ int) {
		answering(conn, func(int) string { io.WriteString(conn, "HTTP/1.0 200 OK\r\n\r\nhello"); return "" })
	})
	r := mustRun(t, Load{Kind: PerRequest, Addr: s.addr, Max: 3})
	wantAllOK(t, r, 3)
	if r.Unframed != 3 {
		t.Errorf("%d answers without length counted, want 3", r.Unframed)
	}
}
