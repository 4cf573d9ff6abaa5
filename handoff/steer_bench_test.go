//go:build linux

package handoff

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// benchEndpoint is one as a service has it, with a guard and n listeners.
func benchEndpoint(b *testing.B, n int) (*Endpoint, []*Listener) {
	b.Helper()
	guard, err := NewGuard()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { guard.Close() })
	ep, err := Open(b.Context(), Spec{Network: TCP, Host: "127.0.0.1"}, OpenOptions{Guard: guard})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ep.CloseAll() })
	var all []*Listener
	for range n {
		l, err := ep.Open()
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, l)
	}
	return ep, all
}

// BenchmarkSteer puts one plan in force after the other, as a switch does.
func BenchmarkSteer(b *testing.B) {
	b.Run("simple", func(b *testing.B) {
		ep, l := benchEndpoint(b, 2)
		benchmarkSteer(b, ep, Plan{Live: l[:1]}, Plan{Live: l[1:]})
		arrivesAt(b, ep, l[1:], net.Dial)
	})
	b.Run("probe+canary+3workers", func(b *testing.B) {
		ep, l := benchEndpoint(b, 9)
		benchmarkSteer(b, ep,
			Plan{Live: l[:3], Candidate: l[3:6], Share: 0.1, Probe: l[3:6]},
			Plan{Live: l[3:6], Candidate: l[6:], Share: 0.1, Probe: l[6:]})
		arrivesAt(b, ep, l[3:], net.Dial)
		arrivesAt(b, ep, l[6:], func(string, string) (net.Conn, error) { return Dial(b.Context(), ep.Addr()) })
	})
}

// benchmarkSteer leaves then in force.
func benchmarkSteer(b *testing.B, ep *Endpoint, now, then Plan) {
	var s samples
	steer := func(p Plan) {
		s.time(func() {
			if err := ep.Steer(p); err != nil {
				b.Fatal(err)
			}
		})
	}
	for b.Loop() {
		steer(now)
		steer(then)
	}
	s.report(b)
}

// arrivesAt checks that the plan in force does what was measured: a client gets
// into one of those queues, and into no other's.
func arrivesAt(b *testing.B, ep *Endpoint, wanted []*Listener, dial func(network, addr string) (net.Conn, error)) {
	b.Helper()
	for range 20 {
		c, err := dial("tcp", ep.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		found := false
		for _, l := range wanted {
			fd, ok, err := l.Accept()
			if err != nil {
				b.Fatal(err)
			}
			if ok {
				found = true
				unix.Close(fd)
			}
		}
		c.Close()
		if !found {
			b.Fatal("a client did not arrive where the plan sends it")
		}
	}
}

// BenchmarkOpenClose makes and ends a generation's listener beside a live one.
func BenchmarkOpenClose(b *testing.B) {
	ep, live := benchEndpoint(b, 1)
	var s samples
	for b.Loop() {
		s.time(func() {
			l, err := ep.Open()
			if err != nil {
				b.Fatal(err)
			}
			if err := ep.Close(l); err != nil {
				b.Fatal(err)
			}
		})
	}
	s.report(b)
	if got := len(ep.steering.members()); got != 1 {
		b.Fatalf("%d members are left, want the live one", got)
	}
	arrivesAt(b, ep, live, net.Dial)
}
