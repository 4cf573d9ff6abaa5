package ready

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
)

// until looks again and again, for things that the kernel has no event for.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func waiting(t *testing.T, l *handoff.Listener) int {
	t.Helper()
	n, _, err := l.Queue()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// acceptOne takes what comes first and closes it.
func acceptOne(t *testing.T, l *handoff.Listener) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		fd, ok, err := l.Accept()
		if err != nil {
			t.Errorf("can't accept: %v", err)
			return
		}
		if ok {
			unix.Close(fd)
			return
		}
	}
	t.Error("nothing to accept came")
}

// A connection that waits in the queue is not one that was accepted, at a listener of one
// device neither.
func TestAcceptedOnlyOnceItWas(t *testing.T) {
	t.Run("any device", func(t *testing.T) { acceptedOnlyOnceItWas(t, endpoint(t)) })
	t.Run("one device", func(t *testing.T) {
		lo, err := net.InterfaceByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		any := endpoint(t)
		listener(t, any) // takes a port
		if err := any.CloseAll(); err != nil {
			t.Fatal(err)
		}
		ep := handoff.OpenAt(any.Spec(), handoff.Key{Addr: any.Addr(), Device: lo.Index}, handoff.OpenOptions{})
		t.Cleanup(func() { ep.CloseAll() })
		acceptedOnlyOnceItWas(t, ep)
	})
}

func acceptedOnlyOnceItWas(t *testing.T, ep *handoff.Endpoint) {
	l := listener(t, ep)
	addrs := []netip.AddrPort{ep.Addr()}
	err := Accepted(short(t), addrs)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "it has not accepted a connection on "+ep.Addr().String()+" (") {
		t.Errorf("nobody accepts: %v", err)
	}
	acceptOne(t, l) // the first probe's, which has closed its end
	result := make(chan error, 1)
	go func() { result <- Accepted(long(t), addrs) }()
	until(t, "a probe", func() bool { return waiting(t, l) == 1 })
	select {
	case err := <-result:
		t.Fatalf("nobody has accepted yet: %v", err)
	case <-time.After(20 * time.Millisecond): // too soon a look would only miss a fault
	}
	acceptOne(t, l)
	if err := <-result; err != nil {
		t.Errorf("accepted: %v", err)
	}
}

// The live generation's accepting says nothing of the candidate.
func TestAcceptedProbesTheCandidateOnly(t *testing.T) {
	ep := endpoint(t)
	live, candidate := listener(t, ep), listener(t, ep)
	if err := ep.Steer(handoff.Plan{Live: []*handoff.Listener{live}, Probe: []*handoff.Listener{candidate}}); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- Accepted(long(t), []netip.AddrPort{ep.Addr()}) }()
	until(t, "a probe", func() bool { return waiting(t, candidate) == 1 })
	if n := waiting(t, live); n != 0 {
		t.Errorf("live got %d probes", n)
	}
	acceptOne(t, candidate)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// All endpoints must accept, and the error names the one that does not.
func TestAcceptedAtEachAddress(t *testing.T) {
	a, b := endpoint(t), endpoint(t)
	first, second := listener(t, a), listener(t, b)
	var accepting sync.WaitGroup
	defer accepting.Wait()
	accepting.Go(func() { acceptOne(t, first) })
	err := Accepted(short(t), []netip.AddrPort{a.Addr(), b.Addr()})
	if err == nil || !strings.Contains(err.Error(), "on "+b.Addr().String()) {
		t.Errorf("the second does not accept: %v", err)
	}
	acceptOne(t, second)
	accepting.Go(func() { acceptOne(t, first) })
	accepting.Go(func() { acceptOne(t, second) })
	if err := Accepted(long(t), []netip.AddrPort{a.Addr(), b.Addr()}); err != nil {
		t.Error(err)
	}
}

func TestAcceptedWhereNobodyListens(t *testing.T) {
	ep := endpoint(t)
	listener(t, ep)
	at := ep.Addr()
	ep.CloseAll()
	if err := Accepted(long(t), []netip.AddrPort{at}); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
}
