package reload

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/state"
)

// pair finds which of the specs the inherited sockets are meant by: by name, else by
// address. Specs is then one an endpoint, the inherited ones first and in the order in
// which they came, as systemd-socket-activate has it; Inherited has nil for the rest.
func (c Config) pair(ctx context.Context) Config {
	var specs []handoff.Spec
	left := slices.Clone(c.Specs)
	for _, in := range c.Inherited {
		i := slices.IndexFunc(left, func(s handoff.Spec) bool { return s.Name != "" && s.Name == in.Name })
		if i < 0 {
			i = slices.IndexFunc(left, func(s handoff.Spec) bool { return !c.named(s) && in.ListensAt(ctx, s) })
		}
		spec := in.Spec()
		if i >= 0 {
			spec.Options = left[i].Options
			if left[i].Name != "" {
				spec.Name = left[i].Name
			}
			left = slices.Delete(left, i, i+1)
		}
		specs = append(specs, spec)
	}
	c.Specs = append(specs, left...)
	c.Inherited = append(slices.Clone(c.Inherited), make([]*handoff.Inherited, len(left))...)
	return c
}

// named tells whether an inherited socket has the spec's name.
func (c Config) named(s handoff.Spec) bool {
	return s.Name != "" && slices.ContainsFunc(c.Inherited, func(in *handoff.Inherited) bool { return in.Name == s.Name })
}

// checkInherited: two at one address are in one group, and nobody could say which of
// them a client is for.
func checkInherited(cfg Config) error {
	seen := map[string]*handoff.Inherited{}
	for _, in := range cfg.Inherited {
		if in == nil {
			continue
		}
		if other := seen[in.Addr().String()]; other != nil {
			return fmt.Errorf("can't take over %s: %s listens on %s too; with systemd, leave ReusePort= out", in, other, in.Addr())
		}
		seen[in.Addr().String()] = in
	}
	return nil
}

// closeInherited gives up those that have not become an endpoint's.
func (s *Service) closeInherited() {
	for _, in := range s.cfg.Inherited {
		if in != nil {
			in.Close()
		}
	}
}

// giveBack lets new clients wait in the sockets that were inherited, before the
// generation that has them is told to stop for good; true if they went elsewhere
// until now.
func (s *Service) giveBack() bool {
	moved := false
	for i, e := range s.eps {
		given, err := e.GiveBack()
		if err != nil {
			s.report("steer.failed", 0, err)
		}
		if given && e.reserve != nil {
			s.relayFrom(i, e.reserve, s.relayed) // who waits there would wait in vain
		}
		moved = moved || given
	}
	return moved
}

// handBackTime is short of what a container's or a service manager's patience leaves
// beside the stop timeout.
const handBackTime = time.Second

// stopSoon is stopNow for a generation whose clients have just been sent to an
// inherited socket: what is on its way to its own gets its answer first.
func (s *Service) stopSoon(g *generation) {
	if r := s.record(g); r.Phase != state.Live {
		s.stopNow(g)
		return
	}
	s.retract(g)
	ctx, cancel := context.WithTimeout(g.ctx, handBackTime)
	s.settle(ctx, g.number, g.listeners.all(), func(handoff.Settled) {
		cancel()
		s.stopNow(g)
	})
}
