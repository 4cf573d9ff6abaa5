package reload

import (
	"context"
	"fmt"

	"github.com/gapless-dev/gapless/reload/spawn"
)

// Strategy replace: of the daemon only one may run, as it locks its data.
//
//	candidate prepared ─▶ can it be run? ─▶ clients wait in its listeners ─▶ old one
//	settles, is told to stop, all its processes end ─▶ the candidate starts ─▶ live
//
// Until the second step nothing has changed. A candidate that fails later has no old
// one beside it: what was live before is started again, of the program that was kept.
// What the old one had in its queue it serves itself, as settling waits for that.

// makeWay begins the candidate's wait for the end of all others.
func (s *Service) makeWay(g *generation) {
	g.waits = true
	if s.st.Live() == nil {
		s.launchNext()
		return
	}
	o, err := s.options(g)
	if err != nil {
		s.fail(g, CodeFailed, "could not be started: "+because(err))
		return
	}
	pinned := s.pinnedProgram(g)
	s.wg.Go(func() {
		err := s.inspect(g.starting, o, pinned)
		o.Stdin.Close()
		s.post(func() { s.inspected(g, err) })
	})
}

// inspect finds whether the daemon could be run, as far as that can be told without
// running it.
func (s *Service) inspect(ctx context.Context, o spawn.Options, pinned *program) error {
	if pinned != nil {
		var err error
		if o.Path, o.Program, err = pinned.choose(ctx); err != nil {
			return err
		}
	}
	return s.sys.check(ctx, o)
}

func (s *Service) inspected(g *generation, err error) {
	switch {
	case !g.waits || s.candidate() != g: // it was given up
		return
	case err != nil:
		s.failToStart(g, err)
		return
	}
	if old := s.liveGeneration(); old != nil {
		s.replace(old, g)
	}
	s.launchNext()
}

// replace has new clients wait in the next one's listeners and begins the end of old.
func (s *Service) replace(old, next *generation) {
	s.st.Fallen = s.leaves(old)
	if err := s.direct(next); err != nil {
		s.st.Fallen = nil
		s.fail(next, CodeFailed, "could not be switched to: "+err.Error())
		return
	}
	next.awaited = true
	s.emit(event{kind: "generation.awaited", generation: next.number, fields: map[string]any{"awaits": old.number},
		text: fmt.Sprintf("%s: new connections wait for generation %d, which starts when generation %d has ended", s.cfg.Name, next.number, old.number)})
	s.drain(old)
	s.nobodyLive()
}

// launchNext starts the candidate that waits, once no process of another generation is
// left.
func (s *Service) launchNext() {
	g := s.candidate()
	if g == nil || !g.waits || s.st.Live() != nil {
		return
	}
	for _, other := range s.runs {
		if other != g && !other.gone {
			return
		}
	}
	s.launch(g)
}

// backToFallen: the candidate has failed, and what was live before it has ended for
// it. That is what is to be started next, whatever --restart says of crashes.
func (s *Service) backToFallen(f *Failure) bool {
	if s.cfg.Strategy != StrategyReplace || s.st.Live() != nil || s.st.Fallen == nil || !s.current.isAnother() {
		return false
	}
	s.st.Pinned = s.st.Fallen.Program.Origin
	f.Reason += fmt.Sprintf("; what generation %d was is started again", s.st.Fallen.Generation)
	return true
}

// pinnedProgram is what g must run; nil if it looks its command up.
func (s *Service) pinnedProgram(g *generation) *program {
	if !s.record(g).Pinned {
		return nil
	}
	return s.programOf(g)
}
