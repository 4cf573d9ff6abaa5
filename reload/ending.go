package reload

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// Back-off between starts of a daemon that ends by itself.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 30 * time.Second
	calmAfter    = time.Minute
)

// Backoff is how long the n-th start in a row waits, n from 0.
func Backoff(n int) time.Duration {
	if n >= 9 { // 100 ms · 2⁹ is above the most
		return backoffMost
	}
	return min(backoffFirst<<n, backoffMost)
}

// crashed: the live generation has ended by itself. Its listeners, with whoever
// waits in them, become the reserve.
func (s *Service) crashed(g *generation) {
	if s.trial != nil && s.st.Goal == state.Run && s.failedProbation(g) {
		return
	}
	s.st.Fallen = s.leaves(g)
	exit := g.proc.Exit()
	r := s.record(g)
	r.Phase, r.Failure = state.Draining, "ended by itself: "+exit.String()
	s.handOver(g)
	replaced := s.st.Goal == state.Run && (s.current != nil || s.restarts(exit.Failed()))
	what := "and --restart does not start it again"
	if replaced {
		what = "clients wait for its replacement"
	}
	s.emit(event{kind: "generation.crashed", level: levelError, generation: g.number,
		text:   fmt.Sprintf("%s: generation %d ended by itself: %s; %s", s.cfg.Name, g.number, exit, what),
		fields: map[string]any{"exit": exit.String(), "lines": g.output.Lines()}})
	if s.st.Crashes == 0 {
		s.nobodyLive() // in a crash loop the short lives in between do not count
	}
	switch {
	case s.canary != nil: // it is ready, and serves already
		s.goLive(s.canary.gen)
	case s.st.Goal != state.Run, s.current != nil:
	case replaced:
		s.scheduleRestart()
	default:
		s.endWith(exit.Code, nil)
	}
	s.holdOn()
}

// failedProbation: the generation before it serves again, at once.
func (s *Service) failedProbation(g *generation) bool {
	exit := g.proc.Exit()
	f := &Failure{Code: CodeRolledBack, Service: s.cfg.Name, Generation: g.number, Exit: exit.String(), ExitCode: exit.Code,
		Reason: "ended by itself during its probation: " + exit.String()}
	err := s.fallBack(g, f)
	if err == nil {
		return true
	}
	s.report("steer.failed", g.number, err)
	t := s.decide()
	s.drain(t.kept)
	f.Code, f.Reason = CodeFailed, f.Reason+"; "+err.Error()
	s.wg.Go(func() { t.rollout.deliver(answer{failure: f}) })
	return false
}

func (s *Service) restarts(failed bool) bool {
	return s.cfg.Restart == RestartAlways || s.cfg.Restart == RestartOnFailure && failed
}

func (s *Service) scheduleRestart() {
	if s.cfg.Restart == RestartNo {
		s.endWith(CodeFailed, nil)
		return
	}
	wait := Backoff(s.st.Crashes)
	s.st.Crashes++
	s.stopTimer(&s.restart)
	s.restart = s.after(wait, func() {
		if s.current == nil && s.st.Live() == nil && s.st.Goal == state.Run {
			s.begin(&rollout{reason: "restart"})
		}
	})
	s.emit(event{kind: "restart.scheduled", level: levelWarn, fields: map[string]any{"wait_ms": wait.Milliseconds()},
		text: fmt.Sprintf("%s: starts again in %s", s.cfg.Name, wait)})
}

// calmDown forgets the crashes when the generation has lived for a while.
func (s *Service) calmDown(g *generation) {
	if s.st.Crashes == 0 {
		return
	}
	s.afterIn(g, calmAfter, func() {
		if s.record(g) != nil && s.record(g).Phase == state.Live {
			s.st.Crashes = 0
		}
	})
}

// Stop drains and stops the daemon. Its sockets stay: clients wait in them for a
// Start, or are refused once the hold timeout is over.
func (s *Service) Stop(ctx context.Context) error {
	done := make(chan error, 1)
	err := s.ask(ctx, func() {
		if s.st.Goal == state.End {
			done <- ErrEnded
			return
		}
		s.st.Goal = state.Stop
		s.stopped = append(s.stopped, done)
		s.windDown()
	})
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// windDown ends all generations in their time; new clients wait in the reserve.
func (s *Service) windDown() {
	s.stopTimer(&s.restart)
	s.giveUpCandidate("the service was stopped")
	s.closeTrial()
	if live := s.st.Live(); live != nil {
		g := s.runs[live.Number]
		s.outcome.last = g
		s.turnAway(g)
		s.drain(g)
		s.nobodyLive()
	}
	if len(s.runs) == 0 {
		s.answerStopped()
	}
}

// turnAway keeps new clients from g: they wait for the next generation, or, if
// there will be none, are refused.
func (s *Service) turnAway(g *generation) {
	if s.st.Goal == state.End {
		s.giveBack()
		s.loosen(g)
		return
	}
	if err := s.holdAll(); err != nil {
		s.report("steer.failed", g.number, err)
	}
}

func (s *Service) giveUpCandidate(why string) {
	if s.next != nil {
		s.answerAll(s.next, s.refusal(CodeFailed, why))
		s.next = nil
	}
	if s.current != nil && s.current.gen != nil {
		s.fail(s.current.gen, CodeFailed, "was given up: "+why)
	}
}

// answerStopped: nothing runs any more.
func (s *Service) answerStopped() {
	if s.st.Goal == state.Run {
		return
	}
	if len(s.stopped) > 0 && s.st.Goal == state.Stop {
		s.emit(event{kind: "service.stopped", text: s.cfg.Name + ": stopped; its sockets stay open"})
	}
	s.answerStops(nil)
}

func (s *Service) answerStops(err error) {
	for _, w := range s.stopped {
		w <- err
	}
	s.stopped = nil
}

func (s *Service) answerAll(r *rollout, err error) {
	for _, w := range r.waiters {
		w.reply <- answer{failure: err}
	}
	r.waiters = nil
}

func (s *Service) answerRollouts(err error) {
	for _, r := range []*rollout{s.current, s.next} {
		if r != nil {
			s.answerAll(r, err)
		}
	}
}

// Shutdown drains and stops the daemon, in its time, and ends the service. It
// returns when Run is about to.
func (s *Service) Shutdown(ctx context.Context) error {
	err := s.ask(ctx, func() {
		s.toEnd("told to, drains first", true)
		s.outcome.requested = true
		s.windDown()
	})
	if errors.Is(err, ErrEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// toEnd: there will be no other generation. drains says that those there are have all
// their time.
func (s *Service) toEnd(why string, drains bool) {
	if s.st.Goal == state.End {
		return
	}
	s.st.Goal = state.End
	s.emit(event{kind: "service.ending", fields: map[string]any{"drains": drains}, text: fmt.Sprintf("%s: ends (%s)", s.cfg.Name, why)})
}

// Interrupt ends the service soon: the stop signal at once, SIGKILL after the stop
// timeout. A second one kills at once. It does not wait.
func (s *Service) Interrupt() { s.post(s.interrupt) }

func (s *Service) interrupt() {
	again := s.hurried
	s.hurried, s.outcome.requested = true, true
	s.toEnd("told to, at once", false)
	s.stopTimer(&s.restart)
	s.giveUpCandidate("the service was told to end")
	s.closeTrial()
	stop := s.stopNow
	if s.giveBack() {
		stop = s.stopSoon
	}
	for _, g := range s.runs {
		if again {
			s.retract(g)
			s.kill(g, "told to end twice")
			g.cancel() // what it had is not waited for
			continue
		}
		stop(g)
	}
}

// retract: what was live is not any more, so that its end is none by itself.
func (s *Service) retract(g *generation) {
	if r := s.record(g); r.Phase == state.Live {
		r.Phase = state.Draining
		s.outcome.last = g
	}
}

func (s *Service) stopNow(g *generation) {
	s.retract(g)
	s.stopGeneration(g)
	s.killAfter(g, s.cfg.StopTimeout)
}

// endWith ends the service because its daemon has ended for good.
func (s *Service) endWith(code int, err error) {
	s.toEnd("its daemon has ended", false)
	s.outcome.code, s.outcome.err = code, err
	s.closeTrial()
	s.giveBack()
	for _, g := range s.runs {
		s.stopNow(g)
	}
}

// settle finds what run ends with after it was told to end: 0 if the daemon followed its
// stop signal, by exiting with 0 or by dying of it.
func (o *outcome) settle(stop syscall.Signal) {
	if !o.requested || o.last == nil || o.last.proc == nil {
		return
	}
	exit := o.last.proc.Exit()
	if exit.Signal != stop {
		o.code = exit.Code
	}
}

// endCode of a first generation that failed: the daemon's own, and where it has
// none, that of the failure. An end before readiness is a failure, even with 0.
func (f *Failure) endCode() int {
	if f.ExitCode > 0 {
		return f.ExitCode
	}
	return f.Code
}

// Kill sends a signal to the main process of the live generation.
func (s *Service) Kill(ctx context.Context, sig syscall.Signal) (int, error) {
	var failed error
	number := 0
	err := s.ask(ctx, func() {
		live := s.st.Live()
		if live == nil {
			failed = s.refusal(CodeNotRunning, "has no live generation")
			return
		}
		number = live.Number
		failed = s.runs[live.Number].proc.Signal(sig)
	})
	return number, errors.Join(err, failed)
}
