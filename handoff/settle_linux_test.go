package handoff

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// settling begins to settle l and returns its outcome's channel.
func settling(t *testing.T, ctx context.Context, l *Listener) <-chan Settled {
	t.Helper()
	s := NewSettler(l)
	done := make(chan Settled, 1)
	go func() {
		left, err := s.Wait(ctx)
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		done <- left
	}()
	return done
}

// switched: a client came to old, and new ones go elsewhere by now.
func switched(t *testing.T) (old *Listener, client net.Conn) {
	t.Helper()
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	old, live := mustOpen(t, ep), mustOpen(t, ep)
	c, err := net.Dial("tcp", ep.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	mustSteer(t, ep, Plan{Live: []*Listener{live}})
	return old, c
}

func notYet(t *testing.T, done <-chan Settled, why string) {
	t.Helper()
	select {
	case left := <-done:
		t.Fatalf("settled (%+v) while %s", left, why)
	case <-time.After(150 * time.Millisecond): // many times what settling takes when nothing is open
	}
}

func TestSettlingFollowsAConnectionToItsAnswer(t *testing.T) {
	old, c := switched(t)
	done := settling(t, t.Context(), old)
	notYet(t, done, "a client waits in the queue")
	fd := acceptOne(t, old)
	defer unix.Close(fd)
	c.Write([]byte("question"))
	notYet(t, done, "it has been accepted and not answered")
	unix.Write(fd, []byte("answer"))
	if left := <-done; !left.Clean() {
		t.Errorf("settled as %+v", left)
	}
}

func TestSettlingLetsGoOfAClosedConnection(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	old, live := mustOpen(t, ep), mustOpen(t, ep)
	c, err := net.Dial("tcp", ep.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	mustSteer(t, ep, Plan{Live: []*Listener{live}})
	fd := acceptOne(t, old)
	done := settling(t, t.Context(), old)
	notYet(t, done, "a silent client is connected")
	unix.Close(fd)
	c.Close()
	if left := <-done; !left.Clean() {
		t.Errorf("settled as %+v", left)
	}
}

// A client that waits for the next generation is not on its way to the old one, and
// may have to wait for longer than that takes to settle.
func TestSettlingLeavesOthersQueuesAlone(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	old, next := mustOpen(t, ep), mustOpen(t, ep)
	mustSteer(t, ep, Plan{Live: []*Listener{next}})
	for range 3 {
		c, err := net.Dial("tcp", ep.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("question"))
	}
	left := <-settling(t, t.Context(), old)
	if waiting, _, err := next.Queue(); waiting != 3 || err != nil {
		t.Fatalf("%d wait in the next one's queue, %v", waiting, err)
	}
	if left.Took > answerTimeout/2 || !left.Clean() {
		t.Errorf("settled as %+v", left)
	}
}

// With defer-accept a silent client stays half-open: it is given up after 3 s.
func TestSettlingGivesUpHalfOpenOnes(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0,defer-accept=30s"))
	old, live := mustOpen(t, ep), mustOpen(t, ep)
	mustSteer(t, ep, Plan{Live: []*Listener{old}})
	c, err := net.Dial("tcp", ep.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mustSteer(t, ep, Plan{Live: []*Listener{live}})
	left := <-settling(t, t.Context(), old)
	if left.HalfOpen != 1 || left.Took < handshakeTimeout || left.Clean() {
		t.Errorf("settled as %+v", left)
	}
}

func TestSettlingEndsWithItsContext(t *testing.T) {
	old, _ := switched(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := settling(t, ctx, old)
	notYet(t, done, "a client waits in the queue")
	cancel()
	if left := <-done; left.Queued != 1 {
		t.Errorf("settled as %+v", left)
	}
}
