package activation

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// mockManager is the other end of NOTIFY_SOCKET.
func mockManager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

func expectSaid(t *testing.T, c *net.UnixConn, want string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != want {
		t.Fatalf("said %q (%v), want %q", b[:n], err, want)
	}
}

func TestNotify(t *testing.T) {
	c := mockManager(t)
	for want, say := range map[string]func() error{
		"READY=1":                    func() error { return Ready() },
		"READY=1\nSTATUS=3 shards":   func() error { return Ready("3 shards") },
		"STOPPING=1":                 Stopping,
		"STATUS=busy FDSTORE=1 here": func() error { return Status("busy\nFDSTORE=1\r\nhere") },
	} {
		if err := say(); err != nil {
			t.Fatal(err)
		}
		expectSaid(t, c, want)
	}
	c.Close()
	if err := Ready(); err == nil || !strings.HasPrefix(err.Error(), "can't say ready") {
		t.Errorf("to a manager that is gone: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Stopping(); err != nil {
		t.Errorf("without a manager: %v", err)
	}
}

// The process's own signals, two listeners, and the exact words to the manager.
func TestServeUntilSignals(t *testing.T) {
	manager := mockManager(t)
	a, b := loopback(t), loopback(t)
	entered, release := make(chan struct{}), make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			close(entered)
			<-release
		}
	})}
	ended := make(chan error, 1)
	go func() { ended <- Serve(t.Context(), srv, a, b) }()
	expectSaid(t, manager, "READY=1")
	for _, ln := range []net.Listener{a, b} {
		dialClient(t, ln.Addr().String()).roundTrip(t, "/")
	}
	hanging := dialClient(t, a.Addr().String())
	hanging.send(t, "/hang")
	<-entered
	kill(t, syscall.SIGTERM)
	expectSaid(t, manager, "STOPPING=1")
	kill(t, syscall.SIGTERM)
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "another signal: terminated") {
		t.Errorf("got %v", err)
	}
	close(release)
	manager.SetReadDeadline(time.Now())
	if n, err := manager.Read(make([]byte, 1)); err == nil {
		t.Errorf("said %d bytes more", n)
	}
}

func kill(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
		t.Fatal(err)
	}
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	ln, err := listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// testClient speaks HTTP/1 itself and repeats nothing, as a client must whose
// requests may not be made twice.
type testClient struct {
	net.Conn
	r *bufio.Reader
}

func dialClient(t *testing.T, addr string) *testClient {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return &testClient{c, bufio.NewReader(c)}
}

func (c *testClient) send(t *testing.T, path string) {
	t.Helper()
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi", path); err != nil {
		t.Fatal(err)
	}
}

func (c *testClient) roundTrip(t *testing.T, path string) {
	t.Helper()
	c.send(t, path)
	if _, err := c.answer(); err != nil {
		t.Fatal(err)
	}
}

// answer reports whether the server has announced the connection's end.
func (c *testClient) answer() (last bool, err error) {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.Close, err
}

// fleet is kept-alive clients, each sending at a constant rate to one server
// and, when that has announced the end of a connection, to another.
type fleet struct {
	// Held while a client connects, until it is served: what is in a listener's
	// queue when it closes is lost, and empty queues are the manager's business.
	connect sync.RWMutex
	target  string
	sent    atomic.Int64
	moved   chan struct{} // one for each client that another server serves
	clients sync.WaitGroup
	lost    chan error
}

// run sends every interval, spread over the clients, until ctx ends.
func (f *fleet) run(ctx context.Context, t *testing.T, clients int, interval time.Duration) {
	f.lost, f.moved = make(chan error, clients), make(chan struct{}, clients)
	for i := range clients {
		c := dialClient(t, f.target)
		c.roundTrip(t, "/")
		f.clients.Add(1)
		go func() {
			defer f.clients.Done()
			time.Sleep(interval * time.Duration(i) / time.Duration(clients))
			if err := f.client(ctx, c, interval); err != nil {
				f.lost <- err
			}
		}()
	}
}

func (f *fleet) client(ctx context.Context, c *testClient, interval time.Duration) error {
	defer func() { c.Close() }()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		last, err := c.ask()
		if err != nil {
			return err
		}
		f.sent.Add(1)
		if !last {
			continue
		}
		c.Close()
		if c, err = f.redial(); err != nil {
			return err
		}
	}
}

func (f *fleet) redial() (*testClient, error) {
	f.connect.RLock()
	defer f.connect.RUnlock()
	conn, err := net.Dial("tcp", f.target)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	c := &testClient{conn, bufio.NewReader(conn)}
	_, err = c.ask()
	f.moved <- struct{}{}
	return c, err
}

func (c *testClient) ask() (last bool, err error) {
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi"); err != nil {
		return false, err
	}
	return c.answer()
}

// allMoved waits until every client is served elsewhere, or one has lost a request.
func (f *fleet) allMoved(t *testing.T, clients int) {
	t.Helper()
	for range clients {
		select {
		case <-f.moved:
		case err := <-f.lost:
			t.Fatalf("a request was lost: %v", err)
		}
	}
}

// 20 generations, one after another, under kept-alive clients: every request is
// answered, and every client moves each time. With Shutdown in drain's place
// this fails.
func TestDrainLosesNothing(t *testing.T) {
	const generations, clients = 20, 16
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var f fleet
	old := startGeneration(t, &f)
	f.run(ctx, t, clients, 2*time.Millisecond)
	for range generations {
		next := startGeneration(t, &f)
		if err := old(); err != nil {
			t.Error(err)
		}
		f.allMoved(t, clients)
		old = next
	}
	cancel()
	f.clients.Wait()
	close(f.lost)
	for err := range f.lost {
		t.Errorf("a request was lost: %v", err)
	}
	if err := old(); err != nil {
		t.Error(err)
	}
	t.Logf("%d requests, %d generations", f.sent.Load(), generations)
}

// startGeneration makes a new server the target, and returns how to stop it.
func startGeneration(t *testing.T, f *fleet) (stop func() error) {
	ln := loopback(t)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	ended := make(chan error, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	go func() { ended <- (&Server{HTTP: &http.Server{Handler: handler}}).Serve(ctx, ln) }()
	f.connect.Lock()
	defer f.connect.Unlock()
	f.target = ln.Addr().String()
	return func() error {
		cancel()
		return <-ended
	}
}

// A header that trickles in on an idle connection for longer than the grace:
// net/http calls that idle until the header is complete, TCP knows better.
func TestDrainWaitsForATricklingHeader(t *testing.T) {
	ln := loopback(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	const grace = 500 * time.Millisecond
	s := &Server{HTTP: &http.Server{Handler: http.HandlerFunc(okHandler)}, IdleGrace: grace}
	go func() { ended <- s.Serve(ctx, ln) }()
	c := dialClient(t, ln.Addr().String())
	c.roundTrip(t, "/")
	cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	header := "GET / HTTP/1.1\r\nHost: test\r\nX-Filler: "
	for begun := time.Now(); time.Since(begun) < 3*grace; <-tick.C {
		if _, err := io.WriteString(c, header); err != nil {
			t.Fatal(err)
		}
		header = "x"
	}
	if _, err := io.WriteString(c, "\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if last, err := c.answer(); err != nil || !last {
		t.Errorf("answer: last %v, %v", last, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// HTTP/2 over TLS: a client that is never idle moves on at the next request.
func TestDrainHTTP2(t *testing.T) {
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	ln := loopback(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	srv := &http.Server{Handler: http.HandlerFunc(okHandler), TLSConfig: &tls.Config{Certificates: cert.TLS.Certificates}}
	go func() { ended <- Serve(ctx, srv, ln) }()
	transport := cert.Client().Transport.(*http.Transport).Clone()
	transport.ForceAttemptHTTP2 = true
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	for i := range 100 {
		if i == 50 {
			cancel()
		}
		resp, err := client.Post("https://"+ln.Addr().String(), "text/plain", strings.NewReader("hi"))
		if err != nil {
			if i > 50 && strings.Contains(err.Error(), "connection refused") {
				break // told to go, it dials, and there is nobody else here
			}
			t.Fatalf("request %d: %v", i, err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.ProtoMajor != 2 {
			t.Fatal(resp.Proto)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
