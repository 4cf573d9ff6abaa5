package reload

import (
	"fmt"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// trial: the live generation is on probation. The one before it is kept, listening
// and told nothing, so that the way back is one system call an endpoint. Who asked
// for the reload is answered when it is decided.
type trial struct {
	rollout *rollout
	result  Result
	kept    *generation
	end     *time.Timer
}

// keep begins a trial, with the generation that was live until now.
func (s *Service) keep(old *generation, r *rollout, result Result) {
	s.record(old).Phase = state.Probation
	t := &trial{rollout: r, result: result, kept: old}
	t.end = s.after(s.cfg.Probation, func() {
		if s.trial == t {
			s.pass()
		}
	})
	s.trial, s.st.ProbationEnds = t, time.Now().Add(s.cfg.Probation)
}

// decide: there is no trial any more.
func (s *Service) decide() *trial {
	t := s.trial
	t.end.Stop()
	s.trial, s.st.ProbationEnds = nil, time.Time{}
	return t
}

// pass: nothing went wrong in the time.
func (s *Service) pass() {
	t := s.decide()
	t.result.Stood = true
	s.drainKept(t)
	s.emit(event{kind: "probation.passed", generation: t.result.Generation, text: t.result.String()})
}

// closeTrial is for what makes an end of it before its time: the next generation is
// live, or the service stops. The short way back is gone, and who waits hears what was so
// far, that the generation is live.
func (s *Service) closeTrial() {
	if s.trial != nil {
		s.drainKept(s.decide())
	}
}

func (s *Service) drainKept(t *trial) {
	counted := make(chan int, 1)
	l := s.lookAt(t.kept)
	s.wg.Go(func() { counted <- s.connections(t.kept.ctx, l) })
	s.drain(t.kept)
	t.result.Draining, t.result.Connections, t.result.Kept = s.draining(), -1, 0
	t.rollout.superseded = counted
	s.wg.Go(func() { t.rollout.deliver(answer{result: t.result}) })
}

// keptEnded: the generation that was kept has ended by itself, and the short way
// back with it. What waits in its listeners is handed on.
func (s *Service) keptEnded(g *generation) {
	s.emit(event{kind: "probation.lost", level: levelWarn, generation: g.number,
		text: fmt.Sprintf("%s: generation %d ended by itself while it was kept: %s; the way back to it is a new start by now", s.cfg.Name, g.number, s.record(g).Exit)})
	s.closeTrial()
	s.relayUntilSettled(g)
}

// fallBack gives up the live generation for the one that is kept. The error leaves
// everything as it was.
func (s *Service) fallBack(from *generation, f *Failure) error {
	if err := s.reinstate(s.trial.kept, from, f.Reason); err != nil {
		return err
	}
	t := s.decide()
	s.wg.Go(func() {
		f.Lines = lastWords(s.ctx, from.output)
		t.rollout.deliver(answer{failure: f})
	})
	return nil
}

// reinstate makes old live again instead of from, whose end it begins. Nobody told
// old to stop yet, and its listeners still listen.
func (s *Service) reinstate(old, from *generation, why string) error {
	if old.proc.HasExited() {
		return fmt.Errorf("can't go back to generation %d: it has ended", old.number)
	}
	if err := s.direct(old); err != nil {
		return err
	}
	r := s.record(old)
	r.Phase = state.Live
	s.st.Recipe, s.st.Previous, s.st.Back, s.st.Pinned = r.Recipe.Clone(), from.number, s.leaves(from), r.Program.Origin
	old.drains++ // what waits for it to settle waits for nothing
	old.unsettled = false
	old.remnant, r.Settled = nil, time.Time{}
	s.record(from).Failure = why
	s.writePIDFile(r.PID)
	s.emit(event{kind: "generation.rolled-back", level: levelWarn, generation: from.number, fields: map[string]any{"live": old.number},
		text: fmt.Sprintf("%s: generation %d %s; generation %d is live again", s.cfg.Name, from.number, why, old.number)})
	s.drain(from)
	if from.exited {
		s.relayUntilSettled(from)
	}
	return nil
}

// relayUntilSettled hands on who waits in the listeners of a generation that has
// ended, and who comes there later, with a handshake that was under way: settling
// would wait for an answer to them in vain.
func (s *Service) relayUntilSettled(g *generation) {
	s.relay(g)
	for _, d := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second} {
		s.afterIn(g, d, func() {
			if g.unsettled {
				s.relay(g)
			}
		})
	}
}
