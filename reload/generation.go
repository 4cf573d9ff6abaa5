package reload

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/notify"
	"github.com/gapless-dev/gapless/reload/spawn"
	"github.com/gapless-dev/gapless/reload/state"
)

// generation is what can't be written down of a running copy of the daemon. The
// rest is its state.Generation.
type generation struct {
	number    int
	proc      *mainProcess //  nil until it runs
	output    *spawn.Output
	notify    notifier
	listeners sockets
	binding
	said       chan struct{}    // closed at READY=1
	early      []notify.Message // came before we knew the process's pid
	ctx        context.Context  // ends with the generation
	cancel     context.CancelFunc
	starting   context.Context // ends when it is ready or given up
	giveUp     context.CancelFunc
	patience   context.Context    // ends also when its time to get ready is over; nil until it is observed
	unobserve  context.CancelFunc // ends what waits for its readiness
	launching  bool               // its process is being started
	waits      bool               // for the end of all others, before its process is started
	reporting  bool               // why it failed is being collected
	unsettled  bool               // its connections are being followed
	own        bool               // its listeners are of its own making: it took none of those that it was offered
	served     bool               // clients by a listener of ours that it has bound
	ages       ages
	remnant    *remnant // what it finishes before it is told to stop
	awaited    bool     // clients may wait in its listeners, though it has not been ready
	leaderless bool     // its main process has ended well, and another may go on in its place
	exited     bool
	gone       bool // with all its processes
	condemned  bool // SIGKILL was sent
	drains     int  // how often it began to drain: a way back may have ended that
	overdue    bool // more are draining than may
}

// record is the generation's data. It exists for as long as the generation runs.
func (s *Service) record(g *generation) *state.Generation { return s.st.Generation(g.number) }

// prepare makes what a generation needs before its process: number, listeners,
// notify socket, output. On error nothing of it stays.
func (s *Service) prepare(r *rollout) (*generation, error) {
	g := &generation{number: s.st.Next, said: make(chan struct{}), binding: newBinding()}
	s.st.Next++
	g.ctx, g.cancel = context.WithCancel(s.ctx)
	g.starting, g.giveUp = context.WithCancel(g.ctx)
	err := s.openListeners(g)
	if err == nil {
		g.notify, err = s.sys.notify()
	}
	if err == nil {
		g.output, err = s.sys.output(s.cfg.Stdout, s.cfg.Stderr)
	}
	s.st.Generations = append(s.st.Generations, state.Generation{
		Number: g.number, Phase: state.Starting, Started: time.Now(), Reason: r.reason,
		Recipe: r.recipe(s.st.Recipe), Of: r.of(), Listeners: s.describe(g),
	})
	if pin := s.programs[s.pinFor(r)]; pin != nil {
		s.record(g).Program, s.record(g).Pinned = pin.Program, true
	}
	if err != nil {
		s.discard(g)
		return g, err
	}
	s.runs[g.number] = g
	s.wg.Go(func() { g.notify.Run(func(m notify.Message) { s.post(func() { s.heard(g, m) }) }) })
	return g, nil
}

func (s *Service) describe(g *generation) []state.Listener {
	var all []state.Listener
	for i, listeners := range g.listeners {
		for _, l := range listeners {
			all = append(all, state.Listener{Endpoint: s.eps[i].name, Inode: l.Inode()})
		}
	}
	return all
}

// discard undoes prepare.
func (s *Service) discard(g *generation) {
	g.cancel()
	s.returnListeners(g)
	if g.notify != nil {
		g.notify.Close()
	}
	s.record(g).Phase = state.Failed
}

// launch starts the process; the answer comes as started.
func (s *Service) launch(g *generation) {
	g.launching, g.waits = true, false
	o, err := s.options(g)
	if err != nil {
		g.output.Started()
		s.wg.Go(func() { s.post(func() { s.started(g, nil, err) }) })
		return
	}
	pinned := s.pinnedProgram(g)
	s.wg.Go(func() {
		proc, err := s.execute(g.starting, o, pinned)
		g.output.Started()
		o.Stdin.Close()
		if !s.post(func() { s.started(g, proc, err) }) && proc != nil {
			proc.Kill()
			<-proc.Gone()
			if w := proc.BindWatch(); w != nil {
				w.Close()
			}
		}
	})
}

// execute runs the daemon, or, if it is pinned, just that program.
func (s *Service) execute(ctx context.Context, o spawn.Options, pinned *program) (process, error) {
	if pinned != nil {
		var err error
		if o.Path, o.Program, err = pinned.choose(ctx); err != nil {
			return nil, err
		}
	}
	return s.sys.start(ctx, o)
}

func (s *Service) options(g *generation) (spawn.Options, error) {
	credential, own, err := credential(s.cfg.User, s.cfg.Group)
	if err != nil {
		return spawn.Options{}, err
	}
	env, err := s.environment(g, own)
	if err != nil {
		return spawn.Options{}, err
	}
	var files []handoff.File
	for i, l := range g.listeners.each() {
		if err := s.restore(i, l); err != nil {
			return spawn.Options{}, err
		}
		if s.offered(s.eps[i]) {
			files = append(files, handoff.File{Name: s.eps[i].name, FD: l.FD()})
		}
	}
	stdin, err := s.stdin()
	if err != nil {
		return spawn.Options{}, err
	}
	return spawn.Options{
		Order: spawn.Order{Argv: s.record(g).Command, Env: env, Dir: s.workDir(g), Credential: credential, Report: !s.record(g).Pinned, Bind: s.cfg.Delivery != DeliveryListenFDs},
		Shim:  s.cfg.Shim, Listeners: files, Stdin: stdin, Stdout: g.output.Stdout, Stderr: g.output.Stderr,
		GroupOnly: s.cfg.KillMode == KillGroup, Cgroups: s.cfg.Cgroups, Name: fmt.Sprintf("%s-%d", s.cfg.Name, g.number), RaiseOOM: s.raiseOOM(),
	}, nil
}

// workDir of a generation that goes back is the very one, wherever links lead now.
func (s *Service) workDir(g *generation) string {
	r := s.record(g)
	if r.Pinned {
		return r.Program.Dir
	}
	return r.Dir
}

// restore, since a daemon that had this listener before may have changed it. One
// that all share is left alone while another generation runs: that would be stuck
// in accept(2) then and not hear the stop signal.
func (s *Service) restore(i int, l *handoff.Listener) error {
	if s.eps[i].Steering() == "shared" && len(s.runs) > 1 {
		return nil
	}
	return l.Restore(s.cfg.NonBlocking)
}

func (s *Service) stdin() (*os.File, error) {
	if s.cfg.Stdin {
		// A duplicate, since what a generation gets is closed when it has started.
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, fmt.Errorf("can't give the daemon the standard input: %w", err)
		}
		return os.NewFile(uintptr(fd), "stdin"), nil
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("can't give the daemon a standard input: %w", err)
	}
	return f, nil
}

// follow begins to watch a process that runs.
func (s *Service) follow(g *generation, proc process) {
	g.proc = &mainProcess{process: proc}
	r := s.record(g)
	r.PID, r.PIDStart = proc.PID(), startTime(proc.PID())
	r.Binary = binaryOf(r.PID)
	s.remember(g, proc.Program())
	for _, m := range g.early {
		s.heard(g, m)
	}
	g.early = nil
	s.watchBinds(g)
	s.wg.Go(func() { s.awaitEnd(g, g.proc) })
}

// hint at the usual reason of one that ends well before it serves.
func hint(e spawn.Exit) string {
	if e.Failed() {
		return ""
	}
	return " (if it goes to the background by itself: it must stay in the foreground)"
}

// binaryOf is what a process runs just now: a wrapper becomes the daemon later.
func binaryOf(pid int) string {
	path, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return ""
	}
	return path
}

// onExit: the main process has ended; others of the generation may still run. They get
// the stop signal too, and their time.
func (s *Service) onExit(g *generation) {
	g.exited = true
	g.remnant = nil
	r := s.record(g)
	r.Exit, r.Ended = g.proc.Exit().String(), time.Now()
	s.wg.Go(func() { g.proc.SignalGroup(s.cfg.StopSignal) })
	s.killAfter(g, s.cfg.StopTimeout)
	switch r.Phase {
	case state.Starting:
		s.fail(g, CodeNotReady, "ended before it was ready: "+r.Exit+hint(g.proc.Exit()))
	case state.Canary:
		s.reject(g, CodeRolledBack, "ended by itself during its canary: "+r.Exit)
	case state.Live:
		s.crashed(g)
	case state.Probation:
		s.keptEnded(g)
	}
	if r.Phase == state.Failed {
		s.handOver(g)
	}
}

// killAfter ends what is left of a generation when d has passed.
func (s *Service) killAfter(g *generation, d time.Duration) {
	s.afterIn(g, d, func() { s.kill(g, "its time is over") })
}

// afterIn runs f in the owner when d has passed, if the generation is there still.
func (s *Service) afterIn(g *generation, d time.Duration, f func()) {
	t := s.after(d, f)
	context.AfterFunc(g.ctx, func() { t.Stop() })
}

func (s *Service) kill(g *generation, why string) {
	if g.gone || g.proc == nil {
		return
	}
	if !g.condemned {
		s.emit(event{kind: "generation.killed", level: levelWarn, generation: g.number,
			text: fmt.Sprintf("%s: generation %d is killed: %s", s.cfg.Name, g.number, why)})
	}
	g.condemned = true
	s.wg.Go(func() { // finding them takes a look at every process of the machine
		err := g.proc.Kill()
		s.post(func() { s.wereKilled(g, err) })
	})
}

// onGone: no process of the generation is left.
func (s *Service) onGone(g *generation) {
	g.gone = true
	s.nameKilled(g)
	s.retire(g)
}

// retire ends a generation that is gone and settled: clients that still wait in
// its listeners are handed on, the listeners closed.
func (s *Service) retire(g *generation) {
	if g.gone {
		s.launchNext()
	}
	if !g.gone || g.reporting {
		return
	}
	if g.awaited || !s.record(g).Ready.IsZero() { // else there are probes in them, and no clients
		s.relay(g)
	}
	if g.unsettled {
		return
	}
	g.cancel()
	s.returnListeners(g)
	g.notify.Close()
	s.wg.Go(g.output.Close)
	delete(s.runs, g.number)
	s.entomb(g)
	s.sweepPrograms()
	if len(s.runs) == 0 {
		s.answerStopped()
	}
	s.holdOn()
}

// entomb leaves the generation's record among the last ones that have ended.
func (s *Service) entomb(g *generation) {
	const kept = 8
	r := s.record(g)
	if r.Phase != state.Failed {
		r.Phase = state.Gone
	}
	s.removePIDFile(r.PID)
	s.emit(event{kind: "generation.gone", generation: g.number, fields: map[string]any{"exit": r.Exit, "pid": r.PID},
		text: fmt.Sprintf("%s: generation %d is gone (%s)", s.cfg.Name, g.number, cmp.Or(r.Exit, "it never ran"))})
	over := -kept
	for _, one := range s.st.Generations {
		if !one.Phase.Running() {
			over++
		}
	}
	s.st.Generations = slices.DeleteFunc(s.st.Generations, func(one state.Generation) bool {
		if one.Phase.Running() || over <= 0 || s.runs[one.Number] != nil {
			return false
		}
		over--
		return true
	})
}

// earlyMost is more messages than a daemon sends in that time.
const earlyMost = 64

// heard is a message of the daemon's.
func (s *Service) heard(g *generation, m notify.Message) {
	r := s.record(g)
	if g.proc == nil {
		// A daemon that starts quickly may be ready before its start is known here.
		if len(g.early) < earlyMost {
			g.early = append(g.early, m)
		}
		return
	}
	if r == nil || !s.belongs(g, m.PID) {
		return
	}
	if text, ok := m.Fields["STATUS"]; ok {
		r.Status = text
	}
	if m.Ready() && !r.Notified {
		r.Notified, s.st.Notifies = true, true
		close(g.said)
	}
}
