package control

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/reload"
)

// clientsMost connect at once by default, or an eighth of RLIMIT_NOFILE if that is
// less: a reload needs descriptors too. Half of them may follow the events, a quarter
// wait for the daemon; the rest is for those that are answered at once.
const clientsMost = 128

func clientsFor(limit uint64) int { return int(min(clientsMost, max(8, limit/8))) }

func openFilesLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 8 * clientsMost
	}
	return uint64(limit.Cur)
}

// gate lets a limited number of clients in. When one more comes, the oldest of those
// that have not asked for anything yet is turned out; while all are being served, it
// waits. A descriptor is kept in reserve, so that there is one to answer with when
// the holder has no other left.
type gate struct {
	*net.UnixListener
	most int

	mu      sync.Mutex // guards what follows
	clients map[net.Conn]*client
	spare   *os.File
	over    bool

	changed chan struct{} // a client has left, or been served; room for one
	closed  chan struct{}
	close   func() error
}

type client struct {
	since   time.Time // it came, or was answered last
	serving bool      // what it asked for has been read
}

func newGate(l *net.UnixListener, most int) *gate {
	g := &gate{UnixListener: l, most: most, clients: map[net.Conn]*client{}, changed: make(chan struct{}, 1), closed: make(chan struct{})}
	g.close = sync.OnceValue(func() error {
		close(g.closed)
		g.end()
		return l.Close()
	})
	g.refill()
	return g
}

// Close ends Accept.
func (g *gate) Close() error { return g.close() }

// Accept is for the HTTP server's goroutine only.
func (g *gate) Accept() (net.Conn, error) {
	c, err := g.UnixListener.Accept()
	if outOfFiles(err) && g.someoneWaits() && (g.lend() || g.turnOut()) {
		c, err = g.UnixListener.Accept()
	}
	if err != nil {
		return nil, err
	}
	for !g.enter(c) {
		if g.turnOut() {
			continue
		}
		select {
		case <-g.changed:
		case <-time.After(youth):
		case <-g.closed:
			c.Close()
			return nil, net.ErrClosed
		}
	}
	return c, nil
}

// someoneWaits: without a descriptor left, accept(2) fails even if nobody does. The
// HTTP server tries again soon, at most a second later.
func (g *gate) someoneWaits() bool {
	raw, err := g.SyscallConn()
	if err != nil {
		return false
	}
	waits := false
	raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		waits = err == nil && n > 0
	})
	return waits
}

// outOfFiles: this process has no descriptor left, or the machine has none.
func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

func (g *gate) enter(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.clients) >= g.most {
		return false
	}
	g.clients[c] = &client{since: time.Now()}
	return true
}

// youth is more than an honest client takes to ask.
const youth = 250 * time.Millisecond

// turnOut closes the oldest that is not being served, if there is one and it had time
// to ask.
func (g *gate) turnOut() bool {
	g.mu.Lock()
	var oldest net.Conn
	for c, state := range g.clients {
		if !state.serving && (oldest == nil || state.since.Before(g.clients[oldest].since)) {
			oldest = c
		}
	}
	if oldest != nil && time.Since(g.clients[oldest].since) < youth {
		oldest = nil
	}
	delete(g.clients, oldest)
	g.mu.Unlock()
	if oldest == nil {
		return false
	}
	oldest.Close()
	return true
}

// serve marks a client until the function that it returns is called. It reports
// false for one that was just turned out.
func (g *gate) serve(c net.Conn) (done func(), ok bool) {
	if !g.mark(c, true) {
		return nil, false
	}
	return func() {
		g.mark(c, false)
		g.tell()
	}, true
}

func (g *gate) mark(c net.Conn, serving bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	state := g.clients[c]
	if state != nil {
		state.serving, state.since = serving, time.Now()
	}
	return state != nil
}

// follow is the HTTP server's word of each connection.
func (g *gate) follow(c net.Conn, s http.ConnState) {
	if s != http.StateClosed {
		return
	}
	g.mu.Lock()
	delete(g.clients, c)
	g.mu.Unlock()
	g.refill()
	g.tell()
}

func (g *gate) tell() {
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// lend gives the reserve away, so that one more can be accepted.
func (g *gate) lend() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.spare == nil {
		return false
	}
	g.spare.Close()
	g.spare = nil
	return true
}

// refill is tried whenever a client has left.
func (g *gate) refill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.spare != nil || g.over {
		return
	}
	if f, err := os.Open(os.DevNull); err == nil {
		g.spare = f
	}
}

func (g *gate) end() {
	g.mu.Lock()
	g.over = true
	g.mu.Unlock()
	g.lend()
}

// places for clients that stay; each holds one of them.
type places chan struct{}

// take tells the client if there is none left.
func (p places) take(w http.ResponseWriter, service string) (done func(), ok bool) {
	select {
	case p <- struct{}{}:
		return func() { <-p }, true
	default:
	}
	w.Header().Set("Connection", "close") // it need not keep a place here either
	reason := fmt.Sprintf("%d clients wait for it like this already, more than may; end some of them, or try again later", cap(p))
	answer(w, http.StatusServiceUnavailable, refused{failure(reload.CodeBusy, service, reason)})
	return nil, false
}
