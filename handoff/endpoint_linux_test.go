package handoff

import (
	"errors"
	"math"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func mustOpen(t *testing.T, ep *Endpoint) *Listener {
	t.Helper()
	l, err := ep.Open()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func spec(t *testing.T, text string) Spec {
	t.Helper()
	s, err := ParseSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The port that was taken for port 0 stays, through a time of refusing too.
func TestPortZeroStays(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	l := mustOpen(t, ep)
	port := ep.Addr().Port()
	if port == 0 {
		t.Fatal("no port was taken")
	}
	if err := ep.Refuse(); err != nil {
		t.Fatal(err)
	}
	if err := ep.Resume(); err != nil {
		t.Fatal(err)
	}
	for _, fd := range []int{l.FD(), mustOpen(t, ep).FD()} {
		if at, err := boundTo(fd); err != nil || at.Port() != port {
			t.Errorf("a listener is at %v (%v), not at port %d", at, err, port)
		}
	}
}

func TestListenerIsPlainTCP(t *testing.T) {
	l := mustOpen(t, openEndpoint(t, spec(t, "0")))
	if protocol, err := unix.GetsockoptInt(l.FD(), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || protocol != unix.IPPROTO_TCP {
		t.Errorf("protocol %d, %v", protocol, err)
	}
	if flags, err := unix.FcntlInt(uintptr(l.FD()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("not close-on-exec: %#x, %v", flags, err)
	}
}

func TestBacklog(t *testing.T) {
	for _, c := range []struct {
		text  string
		limit int
		warns bool
	}{
		{"127.0.0.1:0", somaxconn(), false},
		{"127.0.0.1:0,backlog=5", 5, false},
		{"127.0.0.1:0,backlog=1000000", somaxconn(), true},
	} {
		ep := openEndpoint(t, spec(t, c.text))
		if _, limit, err := mustOpen(t, ep).Queue(); err != nil || limit != c.limit {
			t.Errorf("%s: the queue's limit is %d, want %d (%v)", c.text, limit, c.limit, err)
		}
		if warns := len(ep.Warnings()) > 0; warns != c.warns {
			t.Errorf("%s: warnings %q", c.text, ep.Warnings())
		}
	}
}

func TestOptionsReachAcceptedConnections(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0,keepalive,nodelay,linger=3s,rcvbuf=64K"))
	l := mustOpen(t, ep)
	c, err := net.Dial("tcp", ep.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fd := acceptOne(t, l)
	defer unix.Close(fd)
	for name, option := range map[string][2]int{"keepalive": {unix.SOL_SOCKET, unix.SO_KEEPALIVE}, "nodelay": {unix.IPPROTO_TCP, unix.TCP_NODELAY}} {
		if on, err := unix.GetsockoptInt(fd, option[0], option[1]); err != nil || on == 0 {
			t.Errorf("%s is not set (%v)", name, err)
		}
	}
	// The kernel doubles what it is given (socket(7)).
	if n, err := unix.GetsockoptInt(l.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || n != 2*64<<10 {
		t.Errorf("rcvbuf is %d (%v)", n, err)
	}
}

func acceptOne(t *testing.T, l *Listener) int {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		fd, ok, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return fd
		}
	}
	t.Fatal("nobody connected")
	return -1
}

func TestCanaryShare(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	live, cand := startDaemon(t, ep, 1, 1), startDaemon(t, ep, 2, 1)
	const n, share = 3000, 0.2
	mustSteer(t, ep, Plan{Live: live.listeners, Candidate: cand.listeners, Share: share})
	got := askMany(t, ep, n)[2]
	if off := math.Abs(float64(got) - n*share); off > 3*math.Sqrt(n*share*(1-share)) {
		t.Errorf("the candidate got %d of %d, asked was %g", got, n, share)
	}
	live.stop(1)
	cand.stop(1)
}

func TestWorkersShareEvenly(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	workers := []*daemon{startDaemon(t, ep, 1, 1), startDaemon(t, ep, 2, 1), startDaemon(t, ep, 3, 1)}
	idle := startDaemon(t, ep, 4, 1)
	var live []*Listener
	for _, w := range workers {
		live = append(live, w.listeners...)
	}
	mustSteer(t, ep, Plan{Live: live})
	const n = 3000
	seen := askMany(t, ep, n)
	for id := uint32(1); id <= 3; id++ {
		if off := math.Abs(float64(seen[id]) - n/3); off > 4*math.Sqrt(n*2/9.) {
			t.Errorf("worker %d got %d of %d", id, seen[id], n)
		}
	}
	if seen[4] != 0 {
		t.Errorf("a listener that no plan names got %d", seen[4])
	}
	for _, d := range append(workers, idle) {
		d.stop(1)
	}
}

func askMany(t *testing.T, ep *Endpoint, n int) map[uint32]int {
	t.Helper()
	seen := map[uint32]int{}
	for range n {
		id, err := ask(ep.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		seen[id]++
	}
	return seen
}

// Hop limit and local source together make a probe; a client with either alone is
// an ordinary one.
func TestProbeReachesOnlyTheCandidate(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::1", ""} {
		t.Run(host, func(t *testing.T) {
			ep := openEndpoint(t, Spec{Network: TCP, Host: host})
			live, cand := startDaemon(t, ep, 1, 1), startDaemon(t, ep, 2, 2)
			mustSteer(t, ep, Plan{Live: live.listeners, Probe: cand.listeners})
			for range 50 {
				c, err := Dial(t.Context(), ep.Addr())
				if err != nil {
					t.Fatal(err)
				}
				if id, err := readID(c); err != nil || id != 2 {
					t.Errorf("a probe went to %d (%v)", id, err)
				}
				c.Close()
				to, _ := reachable(ep.Addr(), nil)
				if id, err := ask(to.String()); err != nil || id != 1 {
					t.Errorf("a client went to %d (%v)", id, err)
				}
			}
			live.stop(1)
			cand.stop(1)
		})
	}
}

func TestCloseRefusesWhatIsSteeredTo(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	l := mustOpen(t, ep)
	if err := ep.Close(l); !errors.Is(err, ErrSteered) {
		t.Errorf("close: %v", err)
	}
	other := mustOpen(t, ep)
	if err := ep.Close(other); err != nil {
		t.Error(err)
	}
	if err := ep.Steer(Plan{Live: []*Listener{other}}); !errors.Is(err, ErrNotMember) {
		t.Errorf("steer to a closed one: %v", err)
	}
}

// One socket for all: what a daemon does to it is mended for all.
func TestSharedListener(t *testing.T) {
	ep, err := Open(t.Context(), spec(t, "127.0.0.1:0"), OpenOptions{Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ep.CloseAll()
	first := startDaemon(t, ep, 1, 1)
	if ep.Steering() != "shared" {
		t.Errorf("steering is %q", ep.Steering())
	}
	shutdown(first.listeners[0].fd)
	left, err := ep.Refresh()
	if err != nil || !slices.Equal(left, first.listeners) {
		t.Fatalf("refresh: %v, %v", left, err)
	}
	if err := ep.Relisten(left[0]); err != nil {
		t.Fatal(err)
	}
	first.stop(1)
	second := startDaemon(t, ep, 2, 1)
	mustSteer(t, ep, Plan{Live: second.listeners})
	if err := ep.Close(first.listeners[0]); err != nil {
		t.Fatal(err)
	}
	if id, err := ask(ep.Addr().String()); err != nil || id != 2 {
		t.Errorf("answered by %d, %v", id, err)
	}
	second.stop(1)
}

func TestDeferAcceptHoldsBackClientsButNoProbe(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0,defer-accept=30s"))
	l := mustOpen(t, ep)
	seconds := func() int {
		n, err := unix.GetsockoptInt(l.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	mustSteer(t, ep, Plan{Live: []*Listener{l}, Probe: []*Listener{l}})
	if n := seconds(); n != 0 {
		t.Errorf("while probed: %d s", n)
	}
	mustSteer(t, ep, Plan{Live: []*Listener{l}})
	if n := seconds(); n < 30 {
		t.Errorf("live: %d s", n)
	}
}

// Pads go when they hold no place any more, and new generations take their places: a
// thousand overlapping drains later there are no more of them than after ten.
func TestPadsAreCollected(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	live := mustOpen(t, ep)
	var draining []*Listener
	most := 0
	for n := range 1000 {
		next := mustOpen(t, ep)
		mustSteer(t, ep, Plan{Live: []*Listener{next}})
		if err := ep.Loosen(live); err != nil {
			t.Fatal(err)
		}
		draining = append(draining, live)
		live = next
		for len(draining) > n%4 {
			if err := ep.Close(draining[len(draining)/2]); err != nil {
				t.Fatal(err)
			}
			draining = slices.Delete(draining, len(draining)/2, len(draining)/2+1)
		}
		most = max(most, len(ep.Inodes()))
	}
	t.Logf("at most %d sockets", most)
	if most > 10 { // live, up to 3 that drain, a candidate, and a pad for each
		t.Errorf("there were %d sockets for one live and up to three draining listeners", most)
	}
	for _, l := range draining {
		if err := ep.Close(l); err != nil {
			t.Fatal(err)
		}
	}
}

// A listener that can't be opened as it should leaves nothing: nobody would ever
// accept from it or close it.
func TestOpenThatFailsLeavesNothing(t *testing.T) {
	g, err := NewGuard()
	if err != nil {
		t.Fatal(err)
	}
	ep, err := Open(t.Context(), spec(t, "127.0.0.1:0"), OpenOptions{Guard: g})
	if err != nil {
		t.Fatal(err)
	}
	defer ep.CloseAll()
	live, old := mustOpen(t, ep), mustOpen(t, ep)
	mustSteer(t, ep, Plan{Live: []*Listener{live}})
	if err := ep.Loosen(old); err != nil { // so that the next one needs a pad
		t.Fatal(err)
	}
	before := ep.Inodes()
	withRoomFor(t, 1, func() {
		if _, err := ep.Open(); !errors.Is(err, unix.EMFILE) {
			t.Errorf("without a descriptor for the pad: %v", err)
		}
	})
	g.Close()
	if _, err := ep.Open(); err == nil {
		t.Error("without a guard")
	}
	if after := ep.Inodes(); len(after) > len(before)+1 { // the second one's pad may stay
		t.Errorf("listeners %v before, %v after", before, after)
	}
}

// withRoomFor runs f with so many descriptors free.
func withRoomFor(t *testing.T, n int, f func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	lowest, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(lowest)
	low := was
	low.Cur = uint64(lowest + n)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	f()
}
