package activation

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// settleLimit is how long the drain waits for a connection's first request,
	// and for an answer, before it leaves the connection to Shutdown. It is also
	// what Shutdown itself gives a connection without a request.
	settleLimit = 5 * time.Second

	settlePoll = 25 * time.Millisecond
)

// drain ends everything that start began. stop's next signal cuts it short.
func (r *serving) drain(stop <-chan os.Signal) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	cutter := make(chan struct{})
	go func() {
		defer close(cutter)
		r.cutDrain(ctx, cancel, stop)
	}()
	defer func() { cancel(nil); <-cutter }()

	err := r.finish(ctx)
	if err == nil {
		return nil
	}
	left := r.conns.len()
	_ = r.srv.Close() // of what is cut anyway
	return fmt.Errorf("can't finish %d connections: %w", left, context.Cause(ctx))
}

// cutDrain ends ctx, with the reason, at the deadline or the next signal.
func (r *serving) cutDrain(ctx context.Context, cancel context.CancelCauseFunc, stop <-chan os.Signal) {
	deadline := time.NewTimer(r.timeout)
	defer deadline.Stop()
	select {
	case <-deadline.C:
		cancel(fmt.Errorf("not done after %v: %w", r.timeout, context.DeadlineExceeded))
	case sig := <-stop:
		cancel(fmt.Errorf("another signal: %v", sig))
	case <-ctx.Done():
	}
}

// finish returns nil when no connection is left, or an error when ctx ended first.
func (r *serving) finish(ctx context.Context) error {
	r.conns.beginDrain()
	for _, ln := range r.lns {
		_ = ln.Close() // the one that failed is closed already
	}
	// Afterwards no connection is between accept and its entry in the table.
	for ; r.running > 0; r.running-- {
		select {
		case <-r.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := r.conns.waitSettled(ctx); err != nil {
		return err
	}
	return r.srv.Shutdown(ctx)
}

// connTable knows the state of every connection of a server that is not
// hijacked. It closes none.
type connTable struct {
	grace    time.Duration
	draining atomic.Bool
	gone     chan struct{} // has one when the table may have become empty

	mu    sync.Mutex
	conns map[net.Conn]connEntry
	begun time.Time // of the drain
}

type connEntry struct {
	state http.ConnState
	since time.Time
}

func newConnTable(grace time.Duration) *connTable {
	return &connTable{grace: grace, gone: make(chan struct{}, 1), conns: map[net.Conn]connEntry{}}
}

// note is the server's ConnState hook.
func (t *connTable) note(c net.Conn, state http.ConnState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if state != http.StateClosed && state != http.StateHijacked {
		t.conns[c] = connEntry{state, time.Now()}
		return
	}
	delete(t.conns, c)
	if len(t.conns) == 0 {
		select {
		case t.gone <- struct{}{}:
		default:
		}
	}
}

// announce makes every answer that begins during the drain the connection's
// last one. net/http turns the header into a GOAWAY where it speaks HTTP/2. An
// upgrade is left alone: its Connection header is the handler's to set, and a
// connection that stays HTTP after all will be idle next.
func (t *connTable) announce(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t.draining.Load() && r.Header.Get("Upgrade") == "" {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

func (t *connTable) beginDrain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begun = time.Now()
	t.draining.Store(true)
}

func (t *connTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns)
}

// waitSettled returns when nothing is left that Shutdown could lose. It polls,
// as Shutdown does: whether a request has begun to arrive is not an event.
func (t *connTable) waitSettled(ctx context.Context) error {
	tick := time.NewTicker(settlePoll)
	defer tick.Stop()
	for !t.settled(time.Now()) {
		select {
		case <-tick.C:
		case <-t.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (t *connTable) settled(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.conns {
		if now.Sub(later(e.since, t.begun)) < t.limit(e.state) {
			return false
		}
	}
	// The table says idle until a request has been read to the end of its
	// header. The kernel knows better, but is asked only when it matters.
	for c, e := range t.conns {
		if e.state != http.StateActive && receiving(c, e.state, t.limit(e.state)) {
			return false
		}
	}
	return true
}

func (t *connTable) limit(state http.ConnState) time.Duration {
	if state == http.StateIdle {
		return t.grace
	}
	return settleLimit
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
