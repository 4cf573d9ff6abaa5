package reload

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/gapless-dev/gapless/reload/state"
)

// Rollback makes the generation live that was so before. One that has not been told
// to stop yet is steered back to, at once; else a new generation is made of what that
// one was made of: its command, its environment, its directory and its program, which
// is run from what was kept if it is not at its path any more. The error is a
// [*Failure], and live stays; or ctx's, and it goes on. Who waits for the reload that
// it undoes is told with [CodeRolledBack].
func (s *Service) Rollback(ctx context.Context, reason string) (Result, error) {
	reply := make(chan answer, 1)
	if err := s.ask(ctx, func() { s.rollback(reason, reply) }); err != nil {
		return Result{}, err
	}
	return s.await(ctx, reply)
}

func (s *Service) rollback(reason string, reply chan<- answer) {
	live := s.st.Live()
	switch {
	case s.st.Goal == state.End:
		reply <- answer{failure: s.refusal(CodeNotRunning, "is ending")}
	case s.canary != nil:
		s.undo(s.canary.gen, s.runs[live.Number], reply, func(from *generation) error {
			s.reject(from, CodeRolledBack, "was given up: "+reason)
			return nil
		})
	case s.current != nil:
		reply <- answer{failure: s.refusal(CodeBusy, "is being reloaded; wait for it, or give it up with reload --supersede")}
	case live == nil:
		reply <- answer{failure: s.refusal(CodeNotRunning, "has no live generation")}
	case s.trial != nil:
		s.undo(s.runs[live.Number], s.trial.kept, reply, func(from *generation) error {
			return s.fallBack(from, &Failure{Code: CodeRolledBack, Service: s.cfg.Name, Generation: from.number, Reason: "was given up: " + reason, ExitCode: -1})
		})
	case s.untold(s.st.Previous) != nil:
		old := s.untold(s.st.Previous)
		s.undo(s.runs[live.Number], old, reply, func(from *generation) error {
			return s.reinstate(old, from, "was given up: "+reason)
		})
	case s.st.Back == nil:
		reply <- answer{failure: s.refusal(CodeFailed, "has no generation to go back to")}
	case s.programs[s.st.Back.Program.Origin] == nil:
		reply <- answer{failure: s.refusal(CodeRefused, fmt.Sprintf("can't go back to generation %d: what it ran is not known", s.st.Back.Generation))}
	default:
		s.begin(&rollout{reason: reason, back: s.st.Back, waiters: []waiter{{reply: reply}}})
	}
}

// untold is a generation that drains and has not been told to stop yet.
func (s *Service) untold(number int) *generation {
	g := s.runs[number]
	if g == nil || g.exited || g.condemned {
		return nil
	}
	if r := s.record(g); r.Phase != state.Draining || !r.Signalled.IsZero() {
		return nil
	}
	return g
}

func (s *Service) undo(from, to *generation, reply chan<- answer, how func(*generation) error) {
	if err := how(from); err != nil {
		reply <- answer{failure: s.refusal(CodeFailed, fmt.Sprintf("can't go back to generation %d: %v", to.number, err))}
		return
	}
	reply <- answer{result: Result{
		Service: s.cfg.Name, Generation: to.number, Back: true, Draining: s.draining(), Connections: -1, DrainTimeout: s.cfg.DrainTimeout,
	}}
}

// leaves is what remains of a generation for the way back.
func (s *Service) leaves(g *generation) *state.Way {
	r := s.record(g)
	return &state.Way{Generation: g.number, Recipe: r.Recipe.Clone(), Program: r.Program}
}

// pinFor is the origin of the program that a rollout's generation has to run, and
// nothing else: that of the one it goes back to, or that of live where it was gone
// back to and only a new process is wanted. A reload looks the command up anew: 0.
func (s *Service) pinFor(r *rollout) int {
	switch {
	case r.back != nil:
		return r.back.Program.Origin
	case r.isAnother():
		return 0
	}
	return s.st.Pinned
}

// noteOf says what a generation that goes back does not have from then.
func (s *Service) noteOf(g *generation) string {
	r := s.record(g)
	if r.Of == 0 || !r.Program.Script && !isInterpreter(filepath.Base(r.Command[0])) {
		return ""
	}
	return "what its program reads is as it is now"
}
