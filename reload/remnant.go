package reload

import (
	"fmt"
	"time"

	"github.com/gapless-dev/gapless/handoff/conns"
)

// Between two looks at what a generation has left. The first come quickly, as most
// requests end soon; later ones cost more than they tell, and so does each where there
// are more than a few connections.
const (
	lookFirst = 50 * time.Millisecond
	lookMost  = time.Second
	lookFew   = 1000
)

// remnant is what a generation that has settled still has to finish before it is told to
// stop.
type remnant struct {
	every time.Duration // until the next look
	left  conns.Count   // when last looked at
	told  bool          // that it is waited for
	blind bool          // it can't be counted, which has been told
}

// letFinish: g has settled. It is told to stop now, or when its connections are finished.
func (s *Service) letFinish(g *generation) {
	s.record(g).Settled = time.Now()
	if g.exited || g.condemned || !s.record(g).Signalled.IsZero() || !s.finishesFirst(g) {
		s.stopGeneration(g)
		return
	}
	m := &remnant{every: lookFirst}
	g.remnant = m
	s.afterIn(g, s.cfg.DrainTimeout, func() {
		if g.remnant == m {
			s.noMore(g, levelWarn, fmt.Sprintf("still has %s after %s", m, s.cfg.DrainTimeout))
		}
	})
	s.look(g, m)
}

// look at what is left, beside the owner. The queue comes first: what is accepted out of it
// meanwhile is counted then, and, as g has settled, nothing comes into it.
func (s *Service) look(g *generation, m *remnant) {
	l := s.lookAt(g)
	waiting, _ := g.queue()
	s.wg.Go(func() {
		n, err := s.count(g.ctx, l)
		n.Waiting = waiting
		s.post(func() {
			if g.remnant == m {
				s.looked(g, n, err)
			}
		})
	})
}

// looked: n is what g has open, and what waits in its listeners, which it has to accept.
func (s *Service) looked(g *generation, n conns.Count, err error) {
	m := g.remnant
	m.left = n
	switch {
	case err != nil:
		m.cantTell(s, g, err)
	case n.Open+n.Waiting == 0:
		s.noMore(g, levelInfo, "has no connections left")
		return
	case s.cfg.Drain == DrainAuto && n.Busy()+n.Waiting == 0:
		s.noMore(g, levelInfo, fmt.Sprintf("has %s left, idle for %s", m, n.IdleFor.Round(100*time.Millisecond)))
		return
	default:
		m.tell(s, g)
	}
	if n.Open > lookFew {
		m.every = lookMost
	}
	s.afterIn(g, m.every, func() {
		if g.remnant == m {
			s.look(g, m)
		}
	})
	m.every = min(2*m.every, lookMost)
}

// tell, once, that something is waited for.
func (m *remnant) tell(s *Service, g *generation) {
	if m.told {
		return
	}
	m.told = true
	s.emit(event{kind: "generation.finishing", generation: g.number, fields: m.fields(),
		text: fmt.Sprintf("%s: generation %d finishes %s before it is told to stop, at most %s", s.cfg.Name, g.number, m, s.cfg.DrainTimeout)})
}

// cantTell: all of its time is waited then. The signal could cut off what can't be seen.
func (m *remnant) cantTell(s *Service, g *generation, err error) {
	if m.blind {
		return
	}
	m.blind, m.told = true, true
	s.emit(event{kind: "generation.uncounted", level: levelWarn, generation: g.number,
		text: fmt.Sprintf("%s: the connections of generation %d can't be counted, so it is told to stop in %s: %v", s.cfg.Name, g.number, s.cfg.DrainTimeout, err)})
}

// noMore is waited for: g is told to stop.
func (s *Service) noMore(g *generation, level, why string) {
	if m := g.remnant; m.told || level != levelInfo {
		s.emit(event{kind: "generation.finished", level: level, generation: g.number, fields: m.fields(),
			text: fmt.Sprintf("%s: generation %d %s", s.cfg.Name, g.number, why)})
	}
	s.stopGeneration(g)
	s.holdOn()
}

func (m *remnant) fields() map[string]any {
	return map[string]any{"connections": m.left.Open, "idle": m.left.Idle, "queued": m.left.Waiting}
}

// String is "3 connections", with what waits to be accepted.
func (m *remnant) String() string {
	all := m.left.Open + m.left.Waiting
	switch {
	case m.blind:
		return "connections that can't be counted"
	case all == 1:
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", all)
}
