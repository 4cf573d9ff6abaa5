package reload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// rollout is the way of one new generation from the request to the answer.
type rollout struct {
	reason  string
	began   time.Time
	gen     *generation
	waiters []waiter
	back    *state.Way // that it goes, if it does
	// superseded is how many connections live had when the candidate started.
	superseded chan int
}

// waiter is somebody who asked for a rollout.
type waiter struct {
	reply  chan<- answer // has room for one
	change Change
	canary *CanaryOptions // that it wants, if not the service's own
	anew   bool           // wants the command looked up anew
	// ifGeneration, if not 0, must be live when the rollout begins.
	ifGeneration int
}

// answer to a request for a new generation: one of the two.
type answer struct {
	result  Result
	failure error
}

// Reload replaces the live generation. While a reload runs, one more waits; whoever
// asks meanwhile joins the one that waits and gets its answer. The error is a
// [*Failure], what served before still does; or ctx's, and the reload goes on.
func (s *Service) Reload(ctx context.Context, o ReloadOptions) (Result, error) {
	reply := make(chan answer, 1)
	if err := s.ask(ctx, func() { s.request(o, reply) }); err != nil {
		return Result{}, err
	}
	return s.await(ctx, reply)
}

// Trigger is Reload for somebody who does not wait. What becomes of it is told by
// events, a refusal too. Any number of them while a reload runs become one more.
func (s *Service) Trigger(o ReloadOptions) {
	s.post(func() {
		reply := make(chan answer, 1)
		s.request(o, reply)
		select {
		case a := <-reply:
			s.emit(event{kind: "reload.refused", level: levelWarn, text: a.failure.Error(), fields: map[string]any{"reason": o.Reason}})
		default:
		}
	})
}

// Start is for a service that was stopped: clients that waited meanwhile are served.
func (s *Service) Start(ctx context.Context) (Result, error) {
	reply := make(chan answer, 1)
	err := s.ask(ctx, func() {
		s.requestStart(reply)
	})
	if err != nil {
		return Result{}, err
	}
	return s.await(ctx, reply)
}

func (s *Service) requestStart(reply chan<- answer) {
	switch {
	case s.st.Goal == state.End:
		reply <- answer{failure: s.refusal(CodeNotRunning, "is ending")}
	case s.st.Live() != nil:
		reply <- answer{failure: s.refusal(CodeFailed, "is running already")}
	case s.current != nil && s.st.Goal == state.Run:
		s.current.waiters = append(s.current.waiters, waiter{reply: reply})
	default:
		s.st.Goal = state.Run
		s.answerStops(s.refusal(CodeFailed, "was started again before it had stopped"))
		s.join("start", waiter{reply: reply}) // no reload: it runs what ran
	}
}

func (s *Service) await(ctx context.Context, reply <-chan answer) (Result, error) {
	select {
	case a := <-reply:
		return a.result, a.failure
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	}
}

func (s *Service) request(o ReloadOptions, reply chan<- answer) {
	switch {
	case s.st.Goal == state.End:
		reply <- answer{failure: s.refusal(CodeNotRunning, "is ending")}
	case s.st.Goal == state.Stop:
		reply <- answer{failure: s.refusal(CodeNotRunning, "is stopped; start it")}
	case s.overtaken(o.IfGeneration):
		reply <- s.tooLateFor(o.IfGeneration)
	case s.checkOptions(o) != nil:
		reply <- answer{failure: s.refusal(CodeFailed, s.checkOptions(o).Error())}
	default:
		s.join(o.Reason, waiter{reply: reply, change: o.Change, canary: o.Canary, anew: true, ifGeneration: o.IfGeneration})
		if o.Supersede {
			s.supersede()
		}
	}
}

func (s *Service) checkOptions(o ReloadOptions) error {
	if o.Canary == nil {
		return o.Change.check()
	}
	switch {
	case s.shared() != nil:
		return errors.New(s.noShare())
	case s.cfg.Strategy == StrategyReplace:
		return errors.New("can't have a canary: with strategy replace only one generation runs at a time")
	}
	return errors.Join(o.Canary.check(), o.Change.check())
}

// overtaken: the generation that was to be replaced is not live.
func (s *Service) overtaken(number int) bool {
	live := s.st.Live()
	return number != 0 && (live == nil || live.Number != number)
}

func (s *Service) tooLateFor(number int) answer {
	return answer{failure: s.refusal(CodeRefused, fmt.Sprintf("has another live generation than %d: %s", number, s.liveText()))}
}

func (s *Service) liveText() string {
	if live := s.st.Live(); live != nil {
		return strconv.Itoa(live.Number)
	}
	return "none"
}

func (s *Service) refusal(code int, reason string) *Failure {
	return &Failure{Code: code, Service: s.cfg.Name, Reason: reason, ExitCode: -1}
}

// join begins a rollout, or joins the one that waits for the one under way.
func (s *Service) join(reason string, w waiter) {
	if s.current == nil {
		s.begin(&rollout{reason: reason, waiters: []waiter{w}})
		return
	}
	if s.next == nil {
		s.next = &rollout{reason: reason}
	}
	s.next.waiters = append(s.next.waiters, w)
}

// supersede gives up the candidate, of which somebody knows that it is obsolete; then
// comes the rollout that waits.
func (s *Service) supersede() {
	if s.next == nil {
		return // it has begun
	}
	if g := s.current.gen; g != nil {
		s.fail(g, CodeNotReady, "was given up for a newer one")
	}
}

func (s *Service) begin(r *rollout) {
	s.stopTimer(&s.restart)
	r.began, r.superseded = time.Now(), make(chan int, 1)
	s.current = r
	g, err := s.prepare(r)
	r.gen = g
	s.emit(event{kind: "generation.starting", generation: g.number, fields: map[string]any{"reason": r.reason, "command": s.record(g).Command},
		text: fmt.Sprintf("%s: generation %d starts (%s)", s.cfg.Name, g.number, r.reason)})
	if err != nil {
		s.failed(g, &Failure{Code: CodeFailed, Service: s.cfg.Name, Generation: g.number, Reason: "could not be prepared: " + because(err), ExitCode: -1})
		return
	}
	superseded := r.superseded // a trial gives it another
	s.wg.Go(func() { superseded <- s.countLive(g.ctx) })
	if s.cfg.Strategy == StrategyReplace {
		s.makeWay(g)
		return
	}
	s.checkMemory()
	s.launch(g)
}

// goLive is the switch.
func (s *Service) goLive(g *generation) {
	old := s.st.Live()
	if err := s.direct(g); err != nil {
		s.fail(g, CodeFailed, "could not be switched to: "+err.Error())
		return
	}
	r := s.record(g)
	tried := r.Phase == state.Canary
	s.endCanary()
	r.Phase, r.Binary = state.Live, binaryOf(r.PID)
	if r.Ready.IsZero() {
		r.Ready = time.Now()
	}
	s.st.Recipe, s.st.Pinned = r.Recipe.Clone(), 0
	if r.Pinned {
		s.st.Pinned = r.Program.Origin
	}
	g.giveUp()
	s.everLive = true
	s.stopTimer(&s.hold)
	if s.current.isAnother() {
		s.st.Crashes = 0 // another version: what the last one did is no reason to wait
	}
	s.calmDown(g)
	result := Result{Service: s.cfg.Name, Generation: g.number, Of: r.Of, Note: s.noteOf(g), Took: r.Ready.Sub(s.current.began), DrainTimeout: s.cfg.DrainTimeout}
	if tried {
		result.Tried = time.Since(r.Ready)
	}
	onTrial := false
	s.closeTrial()
	if old == nil && s.st.Fallen != nil && s.current.isAnother() {
		s.st.Previous, s.st.Back = s.st.Fallen.Generation, s.st.Fallen
	}
	s.st.Fallen = nil
	if old != nil {
		s.st.Previous, s.st.Back = old.Number, s.leaves(s.runs[old.Number])
		if onTrial = s.cfg.Probation > 0 && s.current.back == nil; onTrial {
			result.Kept, result.Probation = old.Number, s.cfg.Probation
		} else {
			s.drain(s.runs[old.Number])
		}
	}
	s.abandonReserve(s.relayed)
	for i := range s.eps {
		s.abandonLeftovers(i)
	}
	result.Draining = s.draining()
	if old != nil {
		result.Connections = s.supersededConnections()
	}
	s.writePIDFile(r.PID)
	s.emit(event{kind: "generation.live", generation: g.number, text: result.String(),
		fields: result.fields(r.PID)})
	if onTrial {
		s.keep(s.runs[old.Number], s.current, result)
		s.proceed()
	} else {
		s.conclude(answer{result: result})
	}
	s.wg.Go(func() { s.ease(g) })
	s.wg.Go(func() { s.lookForForeign(g.ctx) })
}

// isAnother: what it makes live is another version, not a replacement of the same.
func (r *rollout) isAnother() bool {
	return r.back != nil || slices.ContainsFunc(r.waiters, func(w waiter) bool { return w.anew })
}

// supersededConnections is -1 if the count is not there yet: the switch does not
// wait for it.
func (s *Service) supersededConnections() int {
	select {
	case n := <-s.current.superseded:
		return n
	default:
		return -1
	}
}

// countPatience is how long an answer waits for the count of connections, which is
// for people to read: a quick daemon may be ready before they have been counted.
const countPatience = 20 * time.Millisecond

// deliver may wait, so it is not the owner's; the waiters' channels have room.
func (r *rollout) deliver(a answer) {
	if a.result.Connections < 0 {
		t := time.NewTimer(countPatience)
		defer t.Stop()
		select {
		case a.result.Connections = <-r.superseded:
		case <-t.C:
		}
	}
	for _, w := range r.waiters {
		w.reply <- a
	}
}

func (s *Service) draining() []int {
	var all []int
	for _, g := range s.st.Generations {
		if g.Phase == state.Draining {
			all = append(all, g.Number)
		}
	}
	return all
}

// conclude answers everybody who waits for the current rollout, and begins the next.
func (s *Service) conclude(a answer) {
	done := s.current
	s.wg.Go(func() { done.deliver(a) })
	s.proceed()
}

// proceed begins the next rollout: the current one is decided, or on trial.
func (s *Service) proceed() {
	s.current = nil
	if s.next == nil || s.st.Goal != state.Run {
		return
	}
	next := s.next
	s.next = nil
	if s.dismiss(next); len(next.waiters) > 0 {
		s.begin(next)
	}
}

// dismiss refuses those whose condition the rollout before theirs has made untrue.
func (s *Service) dismiss(r *rollout) {
	r.waiters = slices.DeleteFunc(r.waiters, func(w waiter) bool {
		overtaken := s.overtaken(w.ifGeneration)
		if overtaken {
			w.reply <- s.tooLateFor(w.ifGeneration)
		}
		return overtaken
	})
}
