package reload

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gapless-dev/gapless/handoff"
)

// has are g's listeners at e: where nobody has named it, it is given none, and those that
// clients wait in are its only when it has bound them.
func (g *generation) has(i int, e *endpoint) []*handoff.Listener {
	if !e.found {
		return g.listeners.at(i)
	}
	return slices.DeleteFunc(slices.Clone(g.listeners.at(i)), func(l *handoff.Listener) bool { return !g.taken[l] })
}

// unbound are the endpoints that other generations have found and this one has nothing
// at; none if it has nothing anywhere.
func (s *Service) unbound(g *generation) (all []int) {
	for i, e := range s.eps {
		if e.found && !e.closed && len(g.has(i, e)) == 0 {
			all = append(all, i)
		}
	}
	if len(g.taken) == 0 {
		return nil
	}
	return all
}

// leaveUnbound gives up the addresses that g has not bound in all its time, and tells
// whether there were any. Nobody has named them, and nobody serves there; so a daemon
// whose configuration has other addresses than before can be started after a stop, or
// with strategy replace. While somebody is live there, g has failed.
func (s *Service) leaveUnbound(g *generation) bool {
	all := s.unbound(g)
	if len(all) == 0 || s.st.Live() != nil {
		return false
	}
	var addrs []string
	for _, i := range all {
		addrs = append(addrs, s.eps[i].Addr().String())
		for _, l := range g.listeners.at(i) {
			g.listeners.remove(i, l)
		}
		s.closeFound(i)
	}
	s.emit(event{kind: "listener.given-up", level: levelWarn, generation: g.number, fields: map[string]any{"addresses": addrs},
		text: fmt.Sprintf("%s: generation %d has not bound %s within %s; connections are refused there", s.cfg.Name, g.number, strings.Join(addrs, ", "), s.cfg.ReadyTimeout)})
	return true
}
