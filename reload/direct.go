package reload

import (
	"errors"
	"slices"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/state"
)

// direct puts in force at every endpoint, or at none, what the state says of where
// new connections go: to live, to a canary in its share, and probes to the candidate.
// With live nil, what gets them keeps them: a generation, or the reserve. When the
// service ends all are let go, and there is nobody to steer to.
func (s *Service) direct(live *generation) error {
	if s.st.Goal == state.End {
		return nil
	}
	return s.steerEach(func(i int, now handoff.Plan) handoff.Plan { return s.plan(i, now, live) })
}

func (s *Service) plan(i int, now handoff.Plan, live *generation) handoff.Plan {
	p := handoff.Plan{Live: now.Live}
	switch {
	case s.paused() && s.eps[i].reserve != nil:
		p.Live = []*handoff.Listener{s.eps[i].reserve}
	case live != nil && len(live.listeners.at(i)) > 0:
		p.Live = live.listeners.at(i)
	}
	g := s.candidate()
	if s.first(g, i) {
		p.Live = g.listeners.at(i)
	}
	if g == nil || len(g.listeners.at(i)) == 0 || g == live || isDown(g.listeners.at(i)) { // it fails with that when the guard is heard
		return p
	}
	p.Probe = g.listeners.at(i)
	if s.record(g).Phase == state.Canary && !s.paused() {
		p.Candidate, p.Share = p.Probe, s.st.Share
	}
	return p
}

// first tells whether clients may wait in the candidate's own sockets already, as nobody
// is live and they wait nowhere else.
func (s *Service) first(g *generation, i int) bool {
	return g != nil && s.st.Live() == nil && !s.paused() && s.eps[i].reserve == nil && !s.heldBack(i) && slices.ContainsFunc(g.listeners.at(i), (*handoff.Listener).Own)
}

// candidate is the generation that is to become live; nil if there is none.
func (s *Service) candidate() *generation {
	if s.current == nil || s.current.gen == nil || s.runs[s.current.gen.number] == nil {
		return nil
	}
	if p := s.record(s.current.gen).Phase; p != state.Starting && p != state.Canary {
		return nil
	}
	return s.current.gen
}

// liveGeneration is nil if there is none.
func (s *Service) liveGeneration() *generation {
	if live := s.st.Live(); live != nil {
		return s.runs[live.Number]
	}
	return nil
}

// steerEach changes all endpoints' plans, or none: where one fails, it and those
// before it go back to what they had. What daemons have shut down is mended first, as
// the guard may not have been heard yet: nobody can be steered to one that is down. But
// not what the candidate has: it fails with that, and not in the midst of steering.
func (s *Service) steerEach(plan func(i int, now handoff.Plan) handoff.Plan) error {
	s.mendListeners(false)
	var before []handoff.Plan
	for i, e := range s.eps {
		now := e.Plan()
		before = append(before, now)
		if e.closed || len(now.Live) == 0 {
			continue
		}
		if err := e.Steer(plan(i, now)); err != nil {
			for j, p := range before {
				if !s.eps[j].closed && len(p.Live) > 0 {
					err = errors.Join(err, s.eps[j].Steer(p))
				}
			}
			return err
		}
	}
	return nil
}

// shared is the first endpoint at which generations share one listener, so that
// nobody can be given a part of the traffic, or none; nil if there is none.
func (s *Service) shared() *endpoint {
	for _, e := range s.eps {
		if e.Steering() == "shared" {
			return e
		}
	}
	return nil
}
