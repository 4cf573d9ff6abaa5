package reload

import (
	"slices"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/ready"
)

// Databases listen before they have read their data, and turn away who comes meanwhile. A
// daemon that shows by more than its listening that it can serve gets a socket of its
// own, and nobody in it before that: clients wait where they waited, and are relayed to it
// when it is live.

// listensEarly tells whether a daemon that listens may not be ready to serve. A command
// as a probe may come through the public address, like any client: it must be let in.
func (s *Service) listensEarly() bool {
	switch s.cfg.Ready.Mode {
	case ready.Notify, ready.Delay:
		return true
	case ready.Probe:
		return s.cfg.Ready.Check.Kind != "exec"
	case ready.Auto, "":
		return s.st.Notifies
	}
	return false
}

// holdsBack: clients stay in l until a candidate is ready. An inherited one is beyond our
// steering.
func (s *Service) holdsBack(l *handoff.Listener) bool {
	return s.listensEarly() && !l.Inherited()
}

// heldBack: they wait in a leftover of endpoint i, which gets them still.
func (s *Service) heldBack(i int) bool { return s.listensEarly() && s.heldIn(i) != nil }

// heldIn is nil where no leftover gets the traffic.
func (s *Service) heldIn(i int) *handoff.Listener {
	e := s.eps[i]
	if e.closed || s.st.Live() != nil {
		return nil
	}
	at := slices.IndexFunc(e.leftovers, func(l *handoff.Listener) bool { return s.gets(i, l) })
	if at < 0 {
		return nil
	}
	return e.leftovers[at]
}

// reclaim: the candidate that clients were held back from has failed. They wait for the
// next one, but no longer than for any other.
func (s *Service) reclaim(i int) {
	e, l := s.eps[i], s.heldIn(i)
	if l == nil || e.reserve != nil {
		return
	}
	e.leftovers = slices.DeleteFunc(e.leftovers, func(other *handoff.Listener) bool { return other == l })
	s.setReserve(i, l)
}
