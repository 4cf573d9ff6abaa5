package reload

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/gapless-dev/gapless/reload/spawn"
)

// Whatever happens to a service, and in whatever order: it keeps its promises. The
// daemons are made up, the steering is the kernel's, time is a bubble's. See plan for
// what happens, inspect for what must hold, and machine for what is foretold.
func TestServiceAgainstAModel(t *testing.T) {
	sequences(t, 2_000, 100_000)
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		p := plans.Draw(rt, "plan")
		if faults := simulate(t, dir, p); len(faults) > 0 {
			rt.Fatalf("%s", strings.Join(faults, "\n"))
		}
	})
}

// sequences sets how many of them are tried and which, unless the command line says so.
// They are the same each time, so that a failure is a change's and not chance's; GAPLESS_SEED
// says which others to try, and 0 draws one.
func sequences(t *testing.T, usual, long int) {
	if os.Getenv("GAPLESS_LONG") != "" {
		usual = long
	}
	setFlag(t, "rapid.checks", strconv.Itoa(usual))
	setFlag(t, "rapid.seed", cmp.Or(os.Getenv("GAPLESS_SEED"), "1"))
}

func setFlag(t *testing.T, name, value string) {
	f := flag.Lookup(name)
	if f.Value.String() != f.DefValue {
		return
	}
	if err := f.Value.Set(value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Value.Set(f.DefValue) })
}

// simulate returns what went wrong. A bubble in which everything waits for ever
// panics, where it was made.
func simulate(t *testing.T, dir string, p plan) (faults []string) {
	w, files := newWorld(dir, p), openFiles()
	defer func() {
		if r := recover(); r != nil {
			faults = append(w.faults, fmt.Sprint(r))
		}
	}()
	synctest.Test(t, func(t *testing.T) { w.live(t.Context()) })
	if left := openFiles(); left != files && len(w.faults) == 0 {
		w.violate("%d files were open before, %d are after", files, left)
	}
	return w.faults
}

func openFiles() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}

// asking is a request that was sent, with room for more answers than one.
type asking struct {
	what    string
	answers chan answer
	got     []answer
}

// life is one sequence under way.
type life struct {
	*world
	ctx      context.Context
	history  *history
	machine  machine
	requests []*asking
	calls    int // that were made, and those that have returned
	called   chan error
	done     chan struct{}
}

func (w *world) live(ctx context.Context) {
	w.shut = make(chan struct{}, 1) // the bubble's
	s, err := newService(ctx, w.plan.config(w), w.system())
	if err != nil {
		w.violate("%v", err)
		return
	}
	w.s = s
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &life{world: w, ctx: ctx, history: newHistory(), called: make(chan error, 100), done: make(chan struct{})}
	go l.run(ctx)
	l.rest()
	l.look("the start")
	for i, one := range w.plan.steps {
		l.step(i, one)
		if len(w.faults) > 0 {
			break
		}
	}
	l.finish(cancel)
}

func (l *life) run(ctx context.Context) {
	defer close(l.done)
	defer func() {
		if r := recover(); r != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.violate("it panicked: %v\n%s", r, debug.Stack())
		}
	}()
	l.s.Run(ctx)
}

// rest lets come what comes at once.
func (l *life) rest() {
	synctest.Wait()
	time.Sleep(moment)
	synctest.Wait()
}

// moment is more than a candidate's last words and settling take, and less than any
// time that somebody waits for.
const moment = 60 * time.Millisecond

func (l *life) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

func (l *life) step(i int, one step) {
	if l.ended() {
		return
	}
	before := l.machine
	l.do(one)
	if one.quick {
		l.machine.blind = true
		return
	}
	l.rest()
	l.look(fmt.Sprintf("step %d, %+v, from %+v", i, one, before))
}

// look checks all, with a client of its own.
func (l *life) look(when string) {
	l.mu.Lock()
	before := len(l.faults)
	l.mu.Unlock()
	if !l.ended() {
		for i := range l.s.Addrs() {
			l.visit(i)
		}
	}
	l.s.ask(l.ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.inspect(l.history)
		l.machine.compare(l.world)
	})
	l.hearAnswers()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.daemons {
		if !d.habits.lazy {
			d.serve()
		}
	}
	for i := before; i < len(l.faults); i++ {
		l.faults[i] = when + ": " + l.faults[i]
	}
}

func (l *life) hearAnswers() {
	for _, r := range l.requests {
		for len(r.answers) > 0 {
			r.got = append(r.got, <-r.answers)
		}
		if len(r.got) > 1 {
			l.violate("%s was answered %d times: %+v", r.what, len(r.got), r.got)
		}
	}
}

// visit is a client that connects to endpoint i: the kernel says where it went.
func (l *life) visit(i int) {
	synctest.Wait() // who is relayed must be known here first
	if l.unheard() {
		return
	}
	fd, err := connect(netip.MustParseAddrPort(l.s.Addrs()[i].Addr))
	if err != nil && !wasRefused(err) {
		l.violate("a client can't connect: %v", err)
		return
	}
	asked := l.s.ask(l.ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.readEvents(l.history)
		if err != nil {
			l.checkRefused()
			return
		}
		l.arrived(i, fd)
	})
	if asked != nil && err == nil {
		unix.Close(fd) // it came before the end
	}
}

// finish ends the service, in one of the ways.
func (l *life) finish(cancel func()) {
	switch l.plan.end {
	case 0:
		cancel()
	case 1:
		l.s.Interrupt()
	case 2:
		l.s.Interrupt()
		l.s.Interrupt()
	case 3:
		go l.s.Shutdown(context.Background())
	}
	select {
	case <-l.done:
	case <-time.After(10 * time.Minute):
		l.violate("it does not end")
		return
	}
	synctest.Wait()
	l.hearAnswers()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.checkEnd()
}

// checkEnd: nothing is left, and everybody has an answer.
func (l *life) checkEnd() {
	l.inspect(l.history)
	l.dropQueues()
	for _, r := range l.requests {
		if len(r.got) != 1 {
			l.violate("%s had %d answers when all was over", r.what, len(r.got))
		}
	}
	if len(l.called) != l.calls {
		l.violate("%d calls were made, %d have returned", l.calls, len(l.called))
	}
	for number, d := range l.daemons {
		if !d.ended || d.child {
			l.violate("the service has ended, and generation %d runs", number)
			d.child = false
			d.end(spawn.Exit{})
		}
	}
	l.checkAnswers()
}

// checkAnswers: who was told of a generation was told the truth.
func (l *life) checkAnswers() {
	for _, r := range l.requests {
		for _, a := range r.got {
			var f *Failure
			switch {
			case a.failure == nil && a.result.Share == nil && !l.history.live[a.result.Generation]:
				l.violate("%s: generation %d is live, it says, and it never was", r.what, a.result.Generation)
			case errors.As(a.failure, &f) && f.Generation != 0 && !l.history.failed(f.Generation):
				l.violate("%s: generation %d failed, it says, and it did not: %v", r.what, f.Generation, f)
			}
		}
	}
}
