package handoff

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A leave must not cost a client, whoever leaves and however often. The kernel
// itself has a moment in which a SYN can reach the leaver whatever the program
// says; see hide.
func TestLeavesUnderLoad(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			ep := openEndpoint(t, Spec{Network: TCP, Host: host})
			live := startDaemon(t, ep, 1, 1)
			h := &history{}
			h.set(1)
			c := startClients(h, ep.Addr().String())
			leaves := 0
			for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); leaves++ {
				l := mustOpen(t, ep)
				if err := ep.Close(l); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%d leaves", leaves)
			c.end(t)
			live.stop(1)
		})
	}
}

// Live is shut down and mended while only hidden ones are there besides, whose group
// it can't join: it is the first of one of its own.
func TestMendedListenerBesideHiddenOnes(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	live, old := startDaemon(t, ep, 1, 1), []*Listener{mustOpen(t, ep), mustOpen(t, ep)}
	for _, l := range old {
		if err := ep.Loosen(l); err != nil {
			t.Fatal(err)
		}
	}
	mend(t, ep, live)
	if seen := askMany(t, ep, 50); seen[1] != 50 {
		t.Errorf("answered by %v", seen)
	}
	if foreign, err := ep.Foreign(t.Context()); err != nil || len(foreign) > 0 {
		t.Errorf("foreign are %v, %v", foreign, err)
	}
	shutdown(old[0].fd)
	for _, l := range old {
		if err := ep.Close(l); err != nil {
			t.Fatal(err)
		}
	}
	if seen := askMany(t, ep, 50); seen[1] != 50 || len(ep.Inodes()) != 1 {
		t.Errorf("then by %v, and %d are open", seen, len(ep.Inodes()))
	}
	live.stop(1)
}

// mend what a daemon has shut down, which then serves again.
func mend(t *testing.T, ep *Endpoint, d *daemon) {
	t.Helper()
	l := d.listeners[0]
	shutdown(l.fd)
	if left, err := ep.Refresh(); err != nil || !slices.Equal(left, d.listeners) {
		t.Fatalf("refresh: %v, %v", left, err)
	}
	if err := ep.Relisten(l); err != nil {
		t.Fatal(err)
	}
	d.stop(1)
	d.lns = nil
	d.serve(t, l)
}

// A mended one stands behind those that may leave. When one of them does, and before
// anybody looks, no client goes astray.
func TestMendedListenerBehindALooseOne(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	live, candidate, old := startDaemon(t, ep, 1, 1), startDaemon(t, ep, 2, 1), mustOpen(t, ep)
	if err := ep.Loosen(old); err != nil {
		t.Fatal(err)
	}
	mend(t, ep, live)
	shutdown(old.fd)
	if seen := askMany(t, ep, 50); seen[1] != 50 {
		t.Errorf("answered by %v", seen)
	}
	live.stop(1)
	candidate.stop(1)
}

// Two of a daemon's processes shut the listener down, each for itself. Who connects
// after it was mended gets an answer, not the end of what was shut down before.
func TestMendedListenerThatWasShutDownTwice(t *testing.T) {
	for _, shared := range []bool{false, true} {
		ep, err := Open(t.Context(), spec(t, "127.0.0.1:0"), OpenOptions{Shared: shared})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ep.CloseAll() })
		live := startDaemon(t, ep, 1, 1)
		shutdown(live.listeners[0].fd)
		mend(t, ep, live)
		if seen := askMany(t, ep, 5); seen[1] != 5 {
			t.Errorf("shared %v: answered by %v", shared, seen)
		}
		live.stop(1)
	}
}

// Live was shut down, and whoever steers has not heard of it yet. That must not spoil
// its next listen.
func TestSteerToOneThatHasJustLeft(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	live, candidate := startDaemon(t, ep, 1, 1), startDaemon(t, ep, 2, 1)
	shutdown(live.listeners[0].fd)
	if err := ep.Steer(Plan{Live: live.listeners, Probe: candidate.listeners}); !errors.Is(err, ErrNotMember) {
		t.Errorf("steered to one that was shut down: %v", err)
	}
	mend(t, ep, live)
	if seen := askMany(t, ep, 50); seen[1] != 50 {
		t.Errorf("answered by %v", seen)
	}
	live.stop(1)
	candidate.stop(1)
}

// An old one was shut down unasked, and nobody has heard of it when its daemon is to be
// told to stop: live has moved into its place. A pad that joins then must not get a
// place that live is believed to have, and with it every client.
func TestLoosenOneThatHasJustLeft(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	old, candidate, live := mustOpen(t, ep), mustOpen(t, ep), startDaemon(t, ep, 1, 1)
	mustSteer(t, ep, Plan{Live: live.listeners})
	shutdown(old.fd)
	for _, l := range []*Listener{old, candidate} {
		if err := ep.Loosen(l); err != nil {
			t.Fatal(err)
		}
		if seen := askMany(t, ep, 50); seen[1] != 50 {
			t.Errorf("answered by %v", seen)
		}
	}
	live.stop(1)
}

// Live was shut down and is closed, not mended: the next listener is the first again.
func TestCloseOfALiveListenerThatHasLeft(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	l := mustOpen(t, ep)
	shutdown(l.fd)
	if left, err := ep.Refresh(); err != nil || len(left) != 1 {
		t.Fatalf("refresh: %v, %v", left, err)
	}
	if err := ep.Steer(Plan{Live: []*Listener{l}}); !errors.Is(err, ErrNotMember) {
		t.Errorf("steer to one that has left: %v", err)
	}
	if err := ep.Close(l); err != nil {
		t.Fatal(err)
	}
	next := startDaemon(t, ep, 2, 1)
	if now := ep.Plan().Live; !slices.Equal(now, next.listeners) {
		t.Errorf("the plan names %v", now)
	}
	if id, err := ask(ep.Addr().String()); err != nil || id != 2 {
		t.Errorf("answered by %d, %v", id, err)
	}
	next.stop(1)
}

// Two daemons shut theirs down before anybody has looked, live's among them. The
// program that is attached for those that have moved must not go through live, or it
// could not listen again.
func TestTwoThatHaveJustLeft(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	all := []*Listener{mustOpen(t, ep), mustOpen(t, ep), mustOpen(t, ep), mustOpen(t, ep)}
	live := all[3]
	mustSteer(t, ep, Plan{Live: []*Listener{live}})
	shutdown(all[1].fd)
	shutdown(live.fd)
	left, err := ep.Refresh()
	if err != nil || len(left) != 2 {
		t.Fatalf("%d have left, %v", len(left), err)
	}
	for _, l := range left {
		if err := ep.Relisten(l); err != nil {
			t.Fatal(err)
		}
	}
	mustSteer(t, ep, Plan{Live: []*Listener{live}})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sockaddr(ep.Addr())); err != nil {
		t.Fatal(err)
	}
	if n, _, err := live.Queue(); err != nil || n != 1 {
		t.Errorf("%d clients wait in live, %v", n, err)
	}
}
