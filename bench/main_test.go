package bench

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// TestMain fails when a test leaves a goroutine or a descriptor behind.
func TestMain(m *testing.M) { os.Exit(leaktest.Run(m, 0)) }

// server is a TCP server on the loopback that does to each connection what the
// test says. Its handler gets the connection's number, from 0.
type server struct {
	addr     string
	listener net.Listener
	handlers sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func serve(t testing.TB, handle func(conn *net.TCPConn, n int)) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: ln.Addr().String(), listener: ln}
	s.handlers.Go(func() { s.accept(handle) })
	t.Cleanup(s.close)
	return s
}

func (s *server) accept(handle func(*net.TCPConn, int)) {
	for n := 0; ; n++ {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, conn)
		s.mu.Unlock()
		s.handlers.Go(func() {
			defer conn.Close()
			handle(conn.(*net.TCPConn), n)
		})
	}
}

func (s *server) accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// close ends the listener and the connections and waits for their handlers.
func (s *server) close() {
	s.listener.Close()
	s.mu.Lock()
	for _, conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	s.handlers.Wait()
}

// answering is a handler that reads requests and writes what answer returns
// for each, until that is empty, announces a close, or the client has gone.
func answering(conn net.Conn, answer func(request int) string) {
	reader := bufio.NewReader(conn)
	for i := 0; ; i++ {
		if _, err := http.ReadRequest(reader); err != nil {
			return
		}
		text := answer(i)
		if text == "" {
			return
		}
		if _, err := conn.Write([]byte(text)); err != nil || strings.Contains(text, "Connection: close") {
			return
		}
	}
}

const (
	okClose = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
	okKeep  = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
)

// pipes is a Dial whose other ends go to handle. It works on synctest's clock.
func pipes(handle func(conn net.Conn, n int)) func(context.Context) (net.Conn, error) {
	var mu sync.Mutex
	n := 0
	return func(context.Context) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		ours, theirs := net.Pipe()
		go func(n int) {
			defer theirs.Close()
			handle(theirs, n)
		}(n)
		n++
		return ours, nil
	}
}

// mustRun runs a load that makes sense and checks that its numbers add up.
func mustRun(t testing.TB, l Load) *Result {
	t.Helper()
	r, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.OK+r.Failed() != r.Sent || int64(r.OK) != r.Latency.Count() || int64(r.OK) != r.Service.Count() {
		t.Errorf("numbers don't add up: %+v", r)
	}
	return r
}

// wantOnly checks that all requests failed in one way.
func wantOnly(t *testing.T, r *Result, class Class, n int) {
	t.Helper()
	if r.Sent != n || r.Failures[class] != n || len(r.Failures) != 1 {
		t.Errorf("sent %d, failures %v, listed %+v; want all %d %s", r.Sent, r.Failures, r.Listed, n, class)
	}
}

func wantAllOK(t *testing.T, r *Result, n int) {
	t.Helper()
	if r.Sent != n || r.OK != n || r.Failed() != 0 {
		t.Errorf("sent %d, ok %d, failures %v, listed %+v; want all %d ok", r.Sent, r.OK, r.Failures, r.Listed, n)
	}
}

const shortTimeout = 50 * time.Millisecond
