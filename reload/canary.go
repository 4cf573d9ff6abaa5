package reload

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// CanaryOptions say how a candidate that is ready is tried on clients before it
// gets all of them.
type CanaryOptions struct {
	// Share of the new connections, 0 to 1, that the candidate gets.
	Share float64
	// For so long; then it gets the rest. With 0 that is decided by [Service.Promote].
	For time.Duration
}

func (o CanaryOptions) check() error {
	if math.IsNaN(o.Share) || o.Share < 0 || o.Share > 1 || o.For < 0 {
		return fmt.Errorf("can't give a candidate a share of %g for %s: want 0 to 1, and a time", o.Share, o.For)
	}
	return nil
}

// canary: the candidate is ready and gets a share of the new connections. Who asked for
// the reload is answered when it is decided.
type canary struct {
	gen  *generation
	end  *time.Timer        // nil if somebody decides
	stop context.CancelFunc // of its watch
}

// canaryFor is what those who asked want, the last of them first, else what the
// service does always.
func (r *rollout) canaryFor(c Config) *CanaryOptions {
	wanted := c.Canary
	for _, w := range r.waiters {
		if w.canary != nil {
			wanted = w.canary
		}
	}
	return wanted
}

// isReady: the candidate gets its share, or all. There is none where nobody is live to
// get the rest, and for what was live before and is gone back to.
func (s *Service) isReady(g *generation) {
	o := s.current.canaryFor(s.cfg)
	if o == nil || s.st.Live() == nil || s.current.back != nil || !s.current.isAnother() {
		s.goLive(g)
		return
	}
	s.beginCanary(g, *o)
}

func (s *Service) beginCanary(g *generation, o CanaryOptions) {
	r := s.record(g)
	r.Phase, r.Ready, r.Binary = state.Canary, time.Now(), binaryOf(r.PID)
	s.st.Share = o.Share
	if err := s.direct(nil); err != nil {
		r.Phase, r.Ready, s.st.Share = state.Starting, time.Time{}, 0
		s.fail(g, CodeFailed, "could not be given its share: "+err.Error())
		return
	}
	g.giveUp()
	ctx, stop := context.WithCancel(g.ctx)
	c := &canary{gen: g, stop: stop}
	s.canary = c
	if o.For > 0 {
		s.st.CanaryEnds = time.Now().Add(o.For)
		c.end = s.after(o.For, func() {
			if s.canary == c {
				s.goLive(g)
			}
		})
	}
	s.emit(event{kind: "canary.begun", generation: g.number, fields: map[string]any{"share": o.Share, "for_ms": o.For.Milliseconds()},
		text: fmt.Sprintf("%s: generation %d gets %s of new connections%s", s.cfg.Name, g.number, percent(o.Share), untilWhen(o.For))})
	w := s.watcher(g)
	s.wg.Go(func() {
		if err := w.keep(ctx); err != nil && ctx.Err() == nil {
			s.post(func() { s.canaryFailed(c, err) })
		}
	})
}

func (s *Service) canaryFailed(c *canary, err error) {
	if s.canary == c && !c.gen.proc.HasExited() { // onExit knows more, and comes
		s.reject(c.gen, CodeRefused, "failed its check during its canary: "+err.Error())
	}
}

func untilWhen(d time.Duration) string {
	if d == 0 {
		return " until it is promoted"
	}
	return fmt.Sprintf(" for %s", d)
}

// percent writes a share as people do.
func percent(share float64) string {
	return fmt.Sprintf("%.4g%%", 100*share)
}

// endCanary: it is decided.
func (s *Service) endCanary() {
	if s.canary == nil {
		return
	}
	s.canary.stop()
	s.stopTimer(&s.canary.end)
	s.canary, s.st.Share, s.st.CanaryEnds = nil, 0, time.Time{}
}

// reject takes a canary its share away; live has everything again. What the canary
// has accepted it may finish: it drains like one that was live.
func (s *Service) reject(g *generation, code int, reason string) {
	r := s.record(g)
	r.Phase, r.Failure = state.Draining, reason
	s.endCanary()
	if err := s.direct(nil); err != nil {
		s.report("steer.failed", g.number, err)
	}
	f := &Failure{Code: code, Service: s.cfg.Name, Generation: g.number, Reason: reason, ExitCode: -1}
	if g.exited {
		f.Exit, f.ExitCode = r.Exit, g.proc.Exit().Code
	}
	s.emit(event{kind: "canary.rejected", level: levelWarn, generation: g.number, fields: map[string]any{"code": code, "exit": f.Exit},
		text: f.Error() + "; " + s.liveHasAll()})
	rejected := s.current
	s.wg.Go(func() {
		f.Lines = lastWords(s.ctx, g.output)
		rejected.deliver(answer{failure: f})
	})
	s.drain(g)
	if g.exited {
		s.relayUntilSettled(g)
	}
	s.proceed()
	if s.st.Live() == nil && s.current == nil && s.st.Goal == state.Run { // it was to take live's place, which has crashed
		s.scheduleRestart()
	}
}

func (s *Service) liveHasAll() string {
	if live := s.st.Live(); live != nil {
		return fmt.Sprintf("generation %d has all again", live.Number)
	}
	return "nobody is live"
}

// Canary gives the candidate a share, 0 to 1, of the new connections: one that has
// one gets another, and keeps its time; one that is not ready yet gets it when it is, until
// [Service.Promote]. It does not wait for that.
func (s *Service) Canary(ctx context.Context, share float64) (Result, error) {
	return s.order(ctx, func(reply chan<- answer) { s.setShare(share, reply) })
}

func (s *Service) setShare(share float64, reply chan<- answer) {
	o := CanaryOptions{Share: share}
	g := s.candidate()
	switch {
	case o.check() != nil:
		reply <- answer{failure: s.refusal(CodeFailed, o.check().Error())}
	case s.st.Goal == state.End:
		reply <- answer{failure: s.refusal(CodeNotRunning, "is ending")}
	case s.shared() != nil:
		reply <- answer{failure: s.refusal(CodeFailed, s.noShare())}
	case g == nil:
		reply <- answer{failure: s.refusal(CodeFailed, "has no candidate to give a share to; start one with reload --canary 10% --canary-for 0s")}
	case s.canary == nil && (s.st.Live() == nil || s.cfg.Strategy == StrategyReplace):
		reply <- answer{failure: s.refusal(CodeFailed, "has no live generation beside the candidate")}
	case s.canary == nil && s.current.back != nil:
		reply <- answer{failure: s.refusal(CodeFailed, "goes back to what was live before, which needs no trial")}
	case s.canary == nil:
		s.current.waiters = append(s.current.waiters, waiter{reply: make(chan answer, 1), canary: &o})
		reply <- answer{result: Result{Service: s.cfg.Name, Generation: g.number, Share: &share, Connections: -1}}
	default:
		s.changeShare(g, share, reply)
	}
}

func (s *Service) changeShare(g *generation, share float64, reply chan<- answer) {
	before := s.st.Share
	s.st.Share = share
	if err := s.direct(nil); err != nil {
		s.st.Share = before
		reply <- answer{failure: s.refusal(CodeFailed, "can't change the share: "+err.Error())}
		return
	}
	s.emit(event{kind: "canary.share", generation: g.number, fields: map[string]any{"share": share},
		text: fmt.Sprintf("%s: generation %d gets %s of new connections", s.cfg.Name, g.number, percent(share))})
	reply <- answer{result: Result{Service: s.cfg.Name, Generation: g.number, Share: &share, Connections: -1}}
}

func (s *Service) noShare() string {
	return fmt.Sprintf("can't give a share: at %s generations share one listener, and who accepts first has the connection", s.shared().Addr())
}

// Promote gives the canary the rest: it is live. The answer is that of the reload which
// began it, and comes when that is decided.
func (s *Service) Promote(ctx context.Context) (Result, error) {
	return s.order(ctx, func(reply chan<- answer) {
		switch {
		case s.st.Goal == state.End:
			reply <- answer{failure: s.refusal(CodeNotRunning, "is ending")}
		case s.canary == nil:
			reply <- answer{failure: s.refusal(CodeFailed, "has no canary to promote")}
		default:
			s.current.waiters = append(s.current.waiters, waiter{reply: reply})
			s.goLive(s.canary.gen)
		}
	})
}

// order has the owner do something that it answers, now or later, through reply.
func (s *Service) order(ctx context.Context, do func(reply chan<- answer)) (Result, error) {
	reply := make(chan answer, 1)
	if err := s.ask(ctx, func() { do(reply) }); err != nil {
		return Result{}, err
	}
	return s.await(ctx, reply)
}
