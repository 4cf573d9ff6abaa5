package reload

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/spawn"
	"github.com/gapless-dev/gapless/reload/state"
)

// rollout is the way of one new generation from the request to the answer.
type rollout struct {
	reason  string
	began   time.Time
	gen     *generation
	waiters []chan<- answer
	// superseded is how many connections live had when the candidate started.
	superseded chan int
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
		s.current.waiters = append(s.current.waiters, reply)
	default:
		s.st.Goal = state.Run
		s.join(ReloadOptions{Reason: "start"}, reply)
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
	live := s.st.Live()
	switch {
	case s.st.Goal == state.End:
		reply <- answer{failure: s.refusal(CodeNotRunning, "is ending")}
	case s.st.Goal == state.Stop:
		reply <- answer{failure: s.refusal(CodeNotRunning, "is stopped; start it")}
	case o.IfGeneration != 0 && (live == nil || live.Number != o.IfGeneration):
		reply <- answer{failure: s.refusal(CodeRefused, fmt.Sprintf("has another live generation than %d", o.IfGeneration))}
	default:
		s.join(o, reply)
	}
}

func (s *Service) refusal(code int, reason string) *Failure {
	return &Failure{Code: code, Service: s.cfg.Name, Reason: reason, ExitCode: -1}
}

// join begins a rollout, or joins the one that waits for the one under way.
func (s *Service) join(o ReloadOptions, reply chan<- answer) {
	if s.current == nil {
		s.begin(&rollout{reason: o.Reason, waiters: []chan<- answer{reply}})
		return
	}
	if s.next == nil {
		s.next = &rollout{reason: o.Reason}
	}
	s.next.waiters = append(s.next.waiters, reply)
}

func (s *Service) begin(r *rollout) {
	s.stopTimer(&s.restart)
	r.began, r.superseded = time.Now(), make(chan int, 1)
	s.current = r
	g, err := s.prepare(r.reason)
	r.gen = g
	s.emit(event{kind: "generation.starting", generation: g.number, fields: map[string]any{"reason": r.reason, "command": s.cfg.Command},
		text: fmt.Sprintf("%s: generation %d starts (%s)", s.cfg.Name, g.number, r.reason)})
	if err != nil {
		s.failed(g, &Failure{Code: CodeFailed, Service: s.cfg.Name, Generation: g.number, Reason: "could not be prepared: " + err.Error(), ExitCode: -1})
		return
	}
	s.wg.Go(func() { r.superseded <- s.countLive(g.ctx) })
	s.launch(g)
}

// started: the daemon runs, or could not be run.
func (s *Service) started(g *generation, proc *spawn.Process, err error) {
	var fault *spawn.ExecError
	g.launching = false
	switch {
	case s.record(g).Phase != state.Starting:
		s.unwanted(g, proc)
	case errors.As(err, &fault):
		s.fail(g, CodeRefused, "could not be run: "+fault.Error(), fault.Code)
	case err != nil:
		s.fail(g, CodeFailed, "could not be started: "+err.Error())
	default:
		s.follow(g, proc)
		s.observe(g)
	}
}

// unwanted: the generation was given up while its process was being started.
func (s *Service) unwanted(g *generation, proc *spawn.Process) {
	if proc == nil {
		g.exited, g.gone = true, true
		s.retire(g)
		return
	}
	s.follow(g, proc)
	s.kill(g, "it was given up")
}

// observe waits for the candidate to be ready.
func (s *Service) observe(g *generation) {
	if err := s.probeFor(g); err != nil {
		s.fail(g, CodeFailed, "could not be probed: "+err.Error())
		return
	}
	w := s.watcher(g)
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeoutCause(g.starting, s.cfg.ReadyTimeout, errTooLate)
		defer cancel()
		err := w.wait(ctx)
		s.post(func() { s.observed(g, err) })
	})
}

var errTooLate = errors.New("its time is over")

func (s *Service) observed(g *generation, err error) {
	switch {
	case s.record(g).Phase != state.Starting:
	case err == nil:
		s.goLive(g)
	case errors.Is(err, ready.ErrRefused):
		s.fail(g, CodeRefused, err.Error())
	case errors.Is(err, errTooLate):
		s.fail(g, CodeNotReady, fmt.Sprintf("was not ready within %s: %s", s.cfg.ReadyTimeout, tooLate(err)))
	default:
		s.fail(g, CodeNotReady, "is not ready: "+err.Error())
	}
}

// goLive is the switch.
func (s *Service) goLive(g *generation) {
	old := s.st.Live()
	if i := downAt(g.listeners); i >= 0 {
		s.fail(g, CodeNotReady, fmt.Sprintf("shut its listener at %s down", s.eps[i].Addr()))
		return
	}
	if err := s.steerTo(g); err != nil {
		s.fail(g, CodeFailed, "could not be switched to: "+err.Error())
		return
	}
	r := s.record(g)
	r.Phase, r.Ready = state.Live, time.Now()
	g.giveUp()
	s.everLive = true
	s.stopTimer(&s.hold)
	s.calmDown(g)
	result := Result{Service: s.cfg.Name, Generation: g.number, Took: time.Since(s.current.began), DrainTimeout: s.cfg.DrainTimeout}
	if old != nil {
		s.drain(s.runs[old.Number])
	}
	s.abandonReserve()
	result.Draining = s.draining()
	if old != nil {
		result.Connections = s.supersededConnections()
	}
	s.writePIDFile(r.PID)
	s.emit(event{kind: "generation.live", generation: g.number, text: result.String(),
		fields: map[string]any{"took_ms": result.Took.Milliseconds(), "pid": r.PID, "draining_connections": result.Connections}})
	s.conclude(answer{result: result})
	s.wg.Go(func() { s.lookForForeign(g.ctx) })
}

// supersededConnections is -1 if the count is not there yet: nobody waits for it.
func (s *Service) supersededConnections() int {
	select {
	case n := <-s.current.superseded:
		return n
	default:
		return -1
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
	s.current = nil
	for _, w := range done.waiters {
		w <- a
	}
	if s.next == nil || s.st.Goal != state.Run {
		return
	}
	next := s.next
	s.next = nil
	s.begin(next)
}

// fail gives the candidate up; what served before still does. What the daemon said
// last is collected before the answer goes out.
func (s *Service) fail(g *generation, code int, reason string, exitCode ...int) {
	r := s.record(g)
	if r.Phase != state.Starting {
		return
	}
	r.Phase, r.Failure = state.Failed, reason
	g.giveUp()
	if err := s.unprobe(); err != nil {
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
	ctx, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
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
	s.conclude(answer{failure: f})
	if s.st.Live() != nil || s.st.Goal != state.Run || s.current != nil {
		return
	}
	if wasFirst && s.cfg.Restart != RestartAlways {
		s.endWith(f.endCode(), f)
		return
	}
	s.scheduleRestart()
}

// watcher is what a goroutine that waits for readiness needs to know.
type watcher struct {
	options ready.Options
	target  ready.Target
	said    <-chan struct{}
	notify  bool
	holds   func() error
}

func (s *Service) watcher(g *generation) watcher {
	w := watcher{options: s.cfg.Ready, said: g.said, target: ready.Target{Addrs: s.addrs(), Dir: s.cfg.Dir}}
	w.notify = w.options.Mode == ready.Notify || w.options.Mode == ready.Auto && s.st.Notifies
	if env, err := s.environment(g, nil); err == nil {
		w.target.Env = env
	}
	inodes := make([]uint64, 0, len(g.listeners))
	for _, l := range g.listeners {
		inodes = append(inodes, l.Inode())
	}
	w.holds = func() error { return holdsAll(g.proc, inodes, w.target.Addrs) }
	return w
}

func (w watcher) wait(ctx context.Context) error {
	if err := w.ready(ctx); err != nil {
		return err
	}
	return w.holds()
}

func (w watcher) ready(ctx context.Context) error {
	switch {
	case w.notify:
		return w.hear(ctx)
	case w.options.Mode == ready.Delay:
		return w.stayAlive(ctx)
	case w.options.Mode == ready.Probe:
		return w.options.Wait(ctx, w.target)
	case w.options.Mode == ready.Accept:
		return ready.Accepted(ctx, w.target.Addrs)
	}
	return w.either(ctx)
}

func (w watcher) hear(ctx context.Context) error {
	select {
	case <-w.said:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("it has not said READY=1: %w", context.Cause(ctx))
	}
}

func (w watcher) stayAlive(ctx context.Context) error {
	t := time.NewTimer(w.options.Delay)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// either: whatever comes first, READY=1 or an accepted connection a listener.
func (w watcher) either(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	accepted := make(chan error, 1)
	go func() { accepted <- ready.Accepted(ctx, w.target.Addrs) }()
	select {
	case <-w.said:
		cancel()
		<-accepted
		return nil
	case err := <-accepted:
		return err
	}
}

// holdsAll finds listeners that the daemon has closed: our duplicate would go on
// taking clients that nobody accepts.
func holdsAll(proc processes, inodes []uint64, addrs []netip.AddrPort) error {
	missing, err := missingSockets(proc, inodes)
	if err != nil || len(missing) == 0 {
		return nil // what can't be read can't be held against it
	}
	return fmt.Errorf("it has closed its listener at %s", addrs[missing[0]])
}

func (s *Service) countLive(ctx context.Context) int {
	var pids []int
	var ports []uint16
	err := s.ask(ctx, func() {
		if live := s.st.Live(); live != nil {
			pids = []int{live.PID}
			if members, err := s.runs[live.Number].proc.Members(); err == nil {
				pids = members
			}
		}
		for _, a := range s.addrs() {
			ports = append(ports, a.Port())
		}
	})
	if err != nil || len(pids) == 0 {
		return 0
	}
	return countConnections(ctx, ports, pids)
}

// countConnections is -1 where it can't be told.
func countConnections(ctx context.Context, ports []uint16, pids []int) int {
	d, err := conns.Open()
	if err != nil {
		return -1
	}
	defer d.Close()
	n, err := d.Count(ctx, ports, pids)
	if err != nil {
		return -1
	}
	return n.Open
}

// processes are a generation's.
type processes interface{ Members() ([]int, error) }

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
