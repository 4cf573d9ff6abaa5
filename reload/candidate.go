package reload

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/spawn"
	"github.com/gapless-dev/gapless/reload/state"
)

// started: the daemon runs, or could not be run.
func (s *Service) started(g *generation, proc process, err error) {
	g.launching = false
	switch {
	case s.record(g).Phase != state.Starting:
		s.unwanted(g, proc)
	case err != nil:
		s.failToStart(g, err)
	default:
		s.follow(g, proc)
		s.observe(g)
	}
}

func (s *Service) failToStart(g *generation, err error) {
	var fault *spawn.ExecError
	switch {
	case errors.As(err, &fault):
		s.fail(g, CodeRefused, "could not be run: "+fault.Error(), fault.Code)
	case errors.As(err, new(*goneError)):
		s.fail(g, CodeRefused, fmt.Sprintf("can't be what generation %d was: %s; reload to run what is there now", s.record(g).Program.Origin, err))
	default:
		s.fail(g, CodeFailed, "could not be started: "+because(err))
	}
}

// unwanted: the generation was given up while its process was being started.
func (s *Service) unwanted(g *generation, proc process) {
	if proc == nil { // starting it was broken off, and what had started is gone
		g.exited, g.gone = true, true
		r := s.record(g)
		r.Exit, r.Ended = "given up while it started", time.Now()
		s.retire(g)
		return
	}
	s.follow(g, proc)
	s.kill(g, "it was given up")
}

// observe waits for the candidate to be ready. It begins anew whenever the candidate's
// listeners have changed, but its time does not.
func (s *Service) observe(g *generation) {
	if err := s.direct(nil); err != nil { // from here on probes reach it
		s.fail(g, CodeFailed, "could not be probed: "+because(err))
		return
	}
	if g.patience == nil {
		ctx, cancel := spawn.WithPatience(g.starting, s.cfg.ReadyTimeout, errTooLate)
		context.AfterFunc(g.starting, cancel)
		g.patience = ctx
	} else {
		g.unobserve()
	}
	var ctx context.Context
	ctx, g.unobserve = context.WithCancel(g.patience)
	w, r := s.watcher(g), s.rivals(g)
	s.wg.Go(func() {
		err := w.wait(ctx)
		if err == nil && s.evict(r) {
			err = w.wait(ctx)
		}
		s.post(func() {
			if ctx.Err() == nil || g.patience.Err() != nil {
				s.observed(g, err)
			}
		})
	})
}

var errTooLate = errors.New("its time is over")

func (s *Service) observed(g *generation, err error) {
	if s.record(g).Phase != state.Starting || g.proc.HasExited() && !g.leaderless {
		return // onExit knows more, and comes or came
	}
	down := s.downAt(g)
	switch {
	case down >= 0:
		s.fail(g, CodeNotReady, fmt.Sprintf("shut its listener at %s down", s.eps[down].Addr()))
	case err == nil && s.lacks(g) != "": // live has bound one more meanwhile
		s.observe(g)
	case err == nil:
		s.isReady(g)
	case errors.Is(err, ready.ErrRefused):
		s.fail(g, CodeRefused, "was refused: "+tooLate(err))
	case errors.Is(err, errTooLate) && s.leaveUnbound(g):
		g.patience = nil // what is left may take as long
		s.observe(g)
	case errors.Is(err, errTooLate):
		s.fail(g, CodeNotReady, fmt.Sprintf("was not ready within %s: %s", s.cfg.ReadyTimeout, tooLate(err))+g.insteadOf())
	default:
		s.fail(g, CodeNotReady, "is not ready: "+because(err))
	}
}

// fail gives the candidate up; what served before still does. What the daemon said
// last is collected before the answer goes out.
func (s *Service) fail(g *generation, code int, reason string, exitCode ...int) {
	r := s.record(g)
	if r.Phase == state.Canary {
		s.reject(g, code, reason)
		return
	}
	if r.Phase != state.Starting {
		return
	}
	r.Phase, r.Failure = state.Failed, reason
	g.giveUp()
	if err := s.direct(nil); err != nil { // it is the candidate no more
		s.report("steer.failed", g.number, err)
	}
	s.loosen(g)
	f := &Failure{Code: code, Service: s.cfg.Name, Generation: g.number, Reason: reason, ExitCode: -1}
	if len(exitCode) > 0 {
		f.ExitCode = exitCode[0]
	}
	switch {
	case g.exited:
		f.Exit, f.ExitCode = r.Exit, g.proc.Exit().Code
	case g.proc != nil:
		s.kill(g, "it was given up")
	case !g.launching:
		g.exited, g.gone = true, true
	}
	g.reporting = true
	s.wg.Go(func() {
		f.Lines = lastWords(s.ctx, g.output)
		s.post(func() { s.failed(g, f) })
	})
}

// lastWords waits a moment for what a daemon that has ended wrote.
func lastWords(ctx context.Context, o *spawn.Output) []string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	o.Flush(ctx)
	return o.Lines()
}

// failed answers, and decides how it goes on.
func (s *Service) failed(g *generation, f *Failure) {
	s.record(g).Failure = f.Reason
	s.emit(event{kind: "generation.failed", level: levelError, generation: g.number, text: f.Error(),
		fields: map[string]any{"code": f.Code, "exit": f.Exit, "lines": f.Lines}})
	if g.reporting {
		g.reporting = false
		s.retire(g)
	}
	wasFirst := !s.everLive
	back := s.backToFallen(f)
	s.conclude(answer{failure: f})
	s.holdOn()
	if s.st.Live() != nil || s.st.Goal != state.Run || s.current != nil {
		return
	}
	if back {
		s.begin(&rollout{reason: "way back"})
		return
	}
	if wasFirst && s.cfg.Restart != RestartAlways {
		s.endWith(f.endCode(), f)
		return
	}
	s.scheduleRestart()
}

// tooLate is what was still missing when the time was over.
func tooLate(err error) string {
	var missing []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line = strings.TrimSuffix(strings.TrimSuffix(line, errTooLate.Error()), ": "); line != "" {
			missing = append(missing, line)
		}
	}
	return strings.Join(missing, "; ")
}
