package handoff

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openEndpoint(t *testing.T, spec Spec) *Endpoint {
	t.Helper()
	ep, err := Open(t.Context(), spec, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ep.CloseAll() })
	return ep
}

func mustSteer(t *testing.T, ep *Endpoint, p Plan) {
	t.Helper()
	if err := ep.Steer(p); err != nil {
		t.Fatal(err)
	}
}

// retire does what a manager does with a generation that was superseded.
func retire(t *testing.T, ep *Endpoint, d *daemon, how int) {
	t.Helper()
	s := NewSettler(d.listeners...)
	if left, err := s.Wait(t.Context()); err != nil || !left.Clean() {
		t.Fatalf("settled with %+v, %v", left, err)
	}
	loosen(t, ep, d)
	d.stop(how)
	closeAll(t, ep, d)
}

func loosen(t *testing.T, ep *Endpoint, d *daemon) {
	t.Helper()
	for _, l := range d.listeners {
		if err := ep.Loosen(l); err != nil {
			t.Fatal(err)
		}
	}
}

func closeAll(t *testing.T, ep *Endpoint, d *daemon) {
	t.Helper()
	for _, l := range d.listeners {
		if n, _, err := l.Queue(); err != nil || n != 0 {
			t.Errorf("%d clients were left in %s (%v)", n, l, err)
		}
		if err := ep.Close(l); err != nil {
			t.Fatal(err)
		}
	}
}

// sequence drives one endpoint through random changes under load.
type sequence struct {
	t        *testing.T
	ep       *Endpoint
	h        *history
	random   *rand.Rand
	ids      uint32
	live     *daemon
	draining []*daemon
	others   []netip.AddrPort // endpoints of their own at the same port
}

func (s *sequence) next() *daemon {
	s.ids++
	return startDaemon(s.t, s.ep, s.ids, 1+s.random.IntN(3)/2)
}

func (s *sequence) step() {
	cand := s.next()
	mustSteer(s.t, s.ep, Plan{Live: s.live.listeners, Probe: cand.listeners})
	for range 3 {
		s.probe(cand)
	}
	switch s.random.IntN(4) {
	case 0: // refused: it never had traffic
		mustSteer(s.t, s.ep, Plan{Live: s.live.listeners})
		loosen(s.t, s.ep, cand)
		cand.stop(s.random.IntN(2))
		closeAll(s.t, s.ep, cand)
		return
	case 1:
		s.h.set(s.live.id, cand.id)
		mustSteer(s.t, s.ep, Plan{Live: s.live.listeners, Candidate: cand.listeners, Share: 0.3, Probe: cand.listeners})
	}
	s.promote(cand)
}

func (s *sequence) probe(to *daemon) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	c, err := Dial(ctx, s.ep.Addr(), s.others...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	if id, err := readID(c); err != nil || id != to.id {
		s.t.Fatalf("a probe of %d went to %d (%v)", to.id, id, err)
	}
}

func (s *sequence) promote(cand *daemon) {
	old := s.live
	s.h.set(old.id, cand.id)
	mustSteer(s.t, s.ep, Plan{Live: cand.listeners})
	s.live = cand
	s.draining = append(s.draining, old)
	if len(s.draining) > s.random.IntN(3) {
		s.drain()
	}
	s.h.set(s.answerers()...)
}

// drain ends the draining generations in any order.
func (s *sequence) drain() {
	s.random.Shuffle(len(s.draining), func(i, j int) { s.draining[i], s.draining[j] = s.draining[j], s.draining[i] })
	for _, d := range s.draining {
		retire(s.t, s.ep, d, s.random.IntN(2))
	}
	s.draining = nil
}

// answerers may answer: live, and those that may still have what they accepted.
func (s *sequence) answerers() []uint32 {
	ids := []uint32{s.live.id}
	for _, d := range s.draining {
		ids = append(ids, d.id)
	}
	return ids
}

func (s *sequence) end() {
	s.drain()
	s.live.stop(1)
	if err := s.ep.CloseAll(); err != nil {
		s.t.Error(err)
	}
}

func begin(t *testing.T, ep *Endpoint, h *history, random *rand.Rand, firstID uint32) *sequence {
	t.Helper()
	s := &sequence{t: t, ep: ep, h: h, random: random, ids: firstID}
	s.live = s.next()
	mustSteer(t, ep, Plan{Live: s.live.listeners})
	h.set(s.live.id)
	return s
}

// The mirror of the kernel's array is right if every one of many thousand real
// connections, through hundreds of changes, reaches who was meant to have it.
func TestSteeringUnderLoad(t *testing.T) {
	for _, kind := range []struct {
		name, host string
		clients    []string
	}{
		{"IPv4", "127.0.0.1", []string{"127.0.0.1"}},
		{"IPv6", "::1", []string{"::1"}},
		{"dual-stack", "", []string{"127.0.0.1", "::1"}},
		{"IPv4 wildcard", "0.0.0.0", []string{"127.0.0.1", "127.3.2.1"}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			random, seed := seeded()
			t.Logf("seed %d", seed)
			ep := openEndpoint(t, Spec{Network: TCP, Host: kind.host})
			h := &history{}
			s := begin(t, ep, h, random, 0)
			var addrs []string
			for _, a := range kind.clients {
				addrs = append(addrs, netip.AddrPortFrom(netip.MustParseAddr(a), ep.Addr().Port()).String())
			}
			c := startClients(h, addrs...)
			for range rounds(60) {
				s.step()
			}
			c.end(t)
			s.end()
		})
	}
}

// rounds is more in a long run.
func rounds(n int) int {
	if os.Getenv("GAPLESS_LONG") != "" {
		return 5 * n
	}
	return n
}

func seeded() (*rand.Rand, uint64) {
	seed := rand.Uint64()
	return rand.New(rand.NewPCG(seed, 1)), seed
}

// An exact address and the wildcard of the same port are two groups, each with a
// program of its own, and neither takes from the other.
func TestSteeringSpecificBesideWildcard(t *testing.T) {
	random, seed := seeded()
	t.Logf("seed %d", seed)
	specific := openEndpoint(t, Spec{Network: TCP, Host: "127.0.0.1"})
	hs, hw := &history{}, &history{}
	ss := begin(t, specific, hs, random, 1000)
	wild := openEndpoint(t, Spec{Network: TCP4, Port: specific.Addr().Port()})
	sw := begin(t, wild, hw, random, 2000)
	sw.others = []netip.AddrPort{specific.Addr()}
	cs := startClients(hs, specific.Addr().String())
	cw := startClients(hw, netip.AddrPortFrom(netip.MustParseAddr("127.9.9.9"), specific.Addr().Port()).String())
	for range rounds(30) {
		ss.step()
		sw.step()
	}
	cs.end(t)
	cw.end(t)
	ss.end()
	sw.end()
}

// Clients connect while nobody accepts, and are served by whoever takes the same
// listener next.
func TestRefuseAndResume(t *testing.T) {
	ep := openEndpoint(t, Spec{Network: TCP, Host: "127.0.0.1"})
	l, err := ep.Open()
	if err != nil {
		t.Fatal(err)
	}
	addr := ep.Addr().String()
	if err := ep.Refuse(); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(addr); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("refusing: %v", err)
	}
	if err := ep.Resume(); err != nil {
		t.Fatal(err)
	}
	d := &daemon{id: 7, listeners: []*Listener{l}}
	d.serve(t, l)
	other := startDaemon(t, ep, 8, 1)
	for range 50 {
		if id, err := ask(addr); err != nil || id != 7 {
			t.Fatalf("after resuming: %d, %v", id, err)
		}
	}
	d.stop(1)
	other.stop(1)
}

// A generation that drains does not keep the address from refusing, and what it has
// in its queue is still its own.
func TestRefuseBesideADrainingGeneration(t *testing.T) {
	ep := openEndpoint(t, Spec{Network: TCP, Host: "127.0.0.1"})
	old := mustOpen(t, ep)
	waiting, err := net.Dial("tcp", ep.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	reserve := mustOpen(t, ep)
	mustSteer(t, ep, Plan{Live: []*Listener{reserve}})
	if err := ep.Loosen(old); err != nil {
		t.Fatal(err)
	}
	if err := ep.Refuse(); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(ep.Addr().String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("refusing: %v", err)
	}
	unix.Close(acceptOne(t, old))
	if err := ep.Resume(); err != nil {
		t.Fatal(err)
	}
	d := &daemon{id: 5, listeners: []*Listener{reserve}}
	d.serve(t, reserve)
	next := startDaemon(t, ep, 6, 1)
	if foreign, err := ep.Foreign(t.Context()); err != nil || len(foreign) > 0 {
		t.Errorf("foreign are %v, %v", foreign, err)
	}
	if err := ep.Close(old); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if id, err := ask(ep.Addr().String()); err != nil || id != 5 {
			t.Fatalf("after resuming: %d, %v", id, err)
		}
	}
	d.stop(1)
	next.stop(1)
}
