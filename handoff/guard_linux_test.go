package handoff

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"
)

// A listener that a daemon shut down is found, although opening and closing others
// has met it before.
func TestShutDownListenerIsFoundUntilMended(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	l, other := mustOpen(t, ep), mustOpen(t, ep)
	shutdown(l.fd)
	third := mustOpen(t, ep)
	if err := ep.Close(third); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if left, err := ep.Refresh(); err != nil || !slices.Equal(left, []*Listener{l}) {
			t.Fatalf("refresh: %v, %v", left, err)
		}
	}
	if err := ep.Relisten(l); err != nil {
		t.Fatal(err)
	}
	shutdown(other.fd)
	if left, err := ep.Refresh(); err != nil || !slices.Equal(left, []*Listener{other}) {
		t.Fatalf("refresh: %v, %v", left, err)
	}
	if err := ep.Close(other); err != nil {
		t.Fatal(err)
	}
	if left, err := ep.Refresh(); err != nil || len(left) > 0 {
		t.Fatalf("refresh: %v, %v", left, err)
	}
}

// A listener that was shut down does not begin to listen again unseen.
func TestShutDownListenerIsFoundAfterARestore(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	l := mustOpen(t, ep)
	shutdown(l.fd)
	if err := l.Restore(false); err != nil {
		t.Fatal(err)
	}
	if left, err := ep.Refresh(); err != nil || !slices.Equal(left, []*Listener{l}) {
		t.Fatalf("refresh: %v, %v", left, err)
	}
}

// guarded is an endpoint and who watches its listeners.
func guarded(t *testing.T) (*Guard, *Endpoint) {
	t.Helper()
	g, err := NewGuard()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	ep, err := Open(t.Context(), spec(t, "127.0.0.1:0"), OpenOptions{Guard: g})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ep.CloseAll() })
	return g, ep
}

func TestGuardNoticesAShutdownAndNoConnection(t *testing.T) {
	g, ep := guarded(t)
	l, other := mustOpen(t, ep), mustOpen(t, ep)
	c, err := net.Dial("tcp", ep.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 { // again after it listens again
		shutdown(other.fd)
		inodes, err := g.Wait(t.Context())
		if err != nil || !slices.Equal(inodes, []uint64{other.Inode()}) {
			t.Fatalf("guard: %v, %v (the listeners are %d and %d)", inodes, err, l.Inode(), other.Inode())
		}
		if left, err := ep.Refresh(); err != nil || !slices.Equal(left, []*Listener{other}) {
			t.Fatalf("refresh: %v, %v", left, err)
		}
		if err := ep.Relisten(other); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if inodes, err := g.Wait(ctx); err == nil {
		t.Errorf("a guard that was ended saw %v", inodes)
	}
}

// A shared listener is watched again after a time of refusing.
func TestGuardAfterSharedResume(t *testing.T) {
	g, err := NewGuard()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ep, err := Open(t.Context(), spec(t, "127.0.0.1:0"), OpenOptions{Shared: true, Guard: g})
	if err != nil {
		t.Fatal(err)
	}
	defer ep.CloseAll()
	l := mustOpen(t, ep)
	if err := ep.Refuse(); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Wait(t.Context()); err != nil { // it sees our own shutdown
		t.Fatal(err)
	}
	if err := ep.Resume(); err != nil {
		t.Fatal(err)
	}
	shutdown(l.fd)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if inodes, err := g.Wait(ctx); err != nil || !slices.Equal(inodes, []uint64{l.Inode()}) {
		t.Errorf("guard: %v, %v", inodes, err)
	}
}
