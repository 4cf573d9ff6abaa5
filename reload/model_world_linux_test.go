package reload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/notify"
	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/spawn"
)

const stopSignal = syscall.SIGTERM

// world is the machine that a service under the model check runs on. Processes,
// notifications, probes and settling are its own, and wait on channels only, so that
// time is a bubble's; sockets, files and steering are the kernel's.
type world struct {
	s    *Service
	plan plan
	dir  string

	mu      sync.Mutex // guards all below; never held while something waits
	faults  []string
	daemons map[int]*daemon // by generation
	latest  *daemon
	hearers map[string]*hearer
	queues  map[uint64][]int // clients that wait, by listener
	file    *file            // at the daemon's path; nil if there is none
	files   map[string]*file // by content
	settled map[int]bool     // generations
	slow    time.Duration    // how long settling takes
	relayed int
	shut    chan struct{} // the guard's word
	shutAt  time.Time
}

func newWorld(dir string, p plan) *world {
	w := &world{plan: p, dir: dir, daemons: map[int]*daemon{}, hearers: map[string]*hearer{}, queues: map[uint64][]int{}, files: map[string]*file{},
		settled: map[int]bool{}, slow: 5 * time.Millisecond}
	w.deploy(replaced)
	return w
}

func (w *world) system() system {
	return system{
		start:    w.start,
		check:    w.check,
		output:   func(_, _ io.Writer) (*spawn.Output, error) { return &spawn.Output{}, nil },
		notify:   w.notify,
		accepted: w.accepted,
		probe:    w.probe,
		once:     w.once,
		missing:  func(process, []uint64) ([]int, error) { return nil, nil },
		settler:  w.settler,
		count:    w.count,
		foreign:  foreign,
		shutDown: w.shutDown,
	}
}

func (w *world) violate(format string, args ...any) {
	if len(w.faults) < 20 {
		w.faults = append(w.faults, fmt.Sprintf(format, args...))
	}
}

func (w *world) habitsOf(number int) habits { return w.plan.habits[number%len(w.plan.habits)] }

func variable(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *world) start(ctx context.Context, o spawn.Options) (process, error) {
	number, _ := strconv.Atoi(variable(o.Env, "GAPLESS_GENERATION"))
	h := w.habitsOf(number)
	switch h.start {
	case startsSlowly:
		if err := pauseFor(ctx, slowStart); err != nil {
			return nil, fmt.Errorf("can't start it: %w", err)
		}
	case notFound:
		return nil, &spawn.ExecError{Command: o.Argv[0], Reason: "no such file", Code: 127}
	case forkFails:
		return nil, errors.New("can't start it: no process can be had")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	d := &daemon{w: w, number: number, pid: fakePID + 10*number, habits: h, child: h.child != noChild,
		notify: w.hearers[variable(o.Env, "NOTIFY_SOCKET")], accepting: make(chan struct{}), exited: make(chan struct{}), gone: make(chan struct{})}
	if err := w.load(d, o); err != nil {
		return nil, err
	}
	for _, l := range o.Listeners {
		w.inherit(d, l.FD)
	}
	if w.daemons[number] != nil {
		w.violate("generation %d was started twice", number)
	}
	w.checkAlone(number)
	w.daemons[number], w.latest = d, d
	if h.quick {
		time.AfterFunc(time.Millisecond, d.become)
	}
	return d, nil
}

// check is what a start would say of the program.
func (w *world) check(_ context.Context, o spawn.Options) error {
	number, _ := strconv.Atoi(variable(o.Env, "GAPLESS_GENERATION"))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.habitsOf(number).start == notFound || w.file == nil && o.Program == nil {
		return &spawn.ExecError{Command: "daemon", Reason: "no such file", Code: 127}
	}
	return nil
}

const (
	slowStart = 10 * time.Millisecond
	// fakePID and more are nobody's: PID_MAX_LIMIT is 2²².
	fakePID = 1 << 23
)

// load is what the shim does with the program.
func (w *world) load(d *daemon, o spawn.Options) error {
	path := filepath.Join(w.dir, "daemon")
	from := o.Program
	if from == nil {
		opened, err := os.Open(path)
		if err != nil {
			return &spawn.ExecError{Command: path, Reason: err.Error(), Code: 127}
		}
		from = opened
		if !o.Report {
			defer opened.Close()
		}
	}
	text := make([]byte, 64)
	n, _ := from.ReadAt(text, 0)
	d.file = w.files[string(text[:n])]
	if o.Report {
		d.program = &spawn.Program{Path: path, Dir: w.dir, File: from}
	}
	return nil
}

func (w *world) inherit(d *daemon, listener int) {
	fd, err := unix.FcntlInt(uintptr(listener), unix.F_DUPFD_CLOEXEC, 3)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		w.violate("generation %d can't have its listener: %v", d.number, err)
		return
	}
	d.sockets = append(d.sockets, socket{fd, st.Ino})
}

// notify is called by the service's owner, for the generation that was numbered last.
func (w *world) notify() (notifier, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.habitsOf(w.s.st.Next-1).start == unprepared {
		return nil, errors.New("can't make a notify socket: no descriptor is left")
	}
	h := &hearer{address: strconv.Itoa(len(w.hearers)), messages: make(chan notify.Message, 8), closed: make(chan struct{})}
	w.hearers[h.address] = h
	return h, nil
}

func (w *world) accepted(ctx context.Context, _ []netip.AddrPort) error {
	w.mu.Lock()
	d := w.latest
	w.mu.Unlock()
	return d.accepts(ctx)
}

func (d *daemon) accepts(ctx context.Context) error {
	accepting := d.accepting
	if d.fails() {
		accepting = nil
	}
	select {
	case <-accepting:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("it has not accepted a connection: %w", context.Cause(ctx))
	}
}

func (d *daemon) sicken() {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.unwell = true
}

func (d *daemon) fails() bool {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	return d.unwell
}

// once is a probe that waits for nothing.
func (w *world) once(_ context.Context, _ ready.Options, t ready.Target) error {
	if d := w.target(t); d.fails() || d.HasExited() {
		return ready.ErrRefused
	}
	return nil
}

func (w *world) target(t ready.Target) *daemon {
	number, _ := strconv.Atoi(variable(t.Env, "GAPLESS_GENERATION"))
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.daemons[number]
}

func (w *world) probe(ctx context.Context, _ ready.Options, t ready.Target) error {
	if err := w.target(t).accepts(ctx); err != nil {
		return errors.Join(err, ready.ErrRefused)
	}
	return nil
}

func (w *world) count(_ context.Context, q conns.Question) (n conns.Count, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.daemons {
		if slices.Contains(q.PIDs, d.pid) && !d.ended {
			n.Open += len(d.conns)
			n.Idle += d.idle()
		}
	}
	return n, nil
}

func foreign(ctx context.Context, _ netip.AddrPort, known func(context.Context) ([]uint64, error)) ([]*handoff.InUseError, error) {
	_, err := known(ctx)
	return nil, err
}

func (w *world) shutDown(ctx context.Context, _ *handoff.Guard) error {
	select {
	case <-w.shut:
		return pauseFor(ctx, w.plan.guard)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
