package reload

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/state"
)

// begun is a request whose answer has begun, and ends when file exists.
func (f *fixture) begun(file string) (rest chan error) {
	f.t.Helper()
	c, r := f.keptAlive("/begin" + file)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasSuffix(line, " begins\n") {
		f.t.Fatalf("it began with %q, %v", line, err)
	}
	rest = make(chan error, 1)
	go func() {
		defer c.Close()
		line, err := r.ReadString('\n')
		if err == nil && line != "and ends\n" {
			err = errors.New("it ended with " + line)
		}
		rest <- err
	}()
	return rest
}

// keptAlive is a connection over which path was asked for, and the body of the answer.
func (f *fixture) keptAlive(path string) (net.Conn, *bufio.Reader) {
	f.t.Helper()
	c, err := net.Dial("tcp", f.Addrs()[0].Addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		f.t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return c, bufio.NewReader(r.Body)
}

// idle is a client that has had its answer and stays connected.
func (f *fixture) idle() net.Conn {
	f.t.Helper()
	c, r := f.keptAlive("/")
	if _, err := io.ReadAll(r); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// disown: as if live had listeners of its own making, of which nobody has told it.
func (f *fixture) disown() {
	f.t.Helper()
	if err := f.ask(f.t.Context(), func() { f.liveGeneration().own = true }); err != nil {
		f.t.Fatal(err)
	}
}

func signalled(number int) func(Status) bool {
	return func(s Status) bool { return !s.Generation(number).Signalled.IsZero() }
}

func careless(t *testing.T, drain Drain) Config {
	cfg := config(t, "careless")
	cfg.Drain, cfg.DrainTimeout = drain, time.Hour
	return cfg
}

// waited is for how long the connections of a generation were waited for.
func waited(s Status, number int) time.Duration {
	g := s.Generation(number)
	return g.Signalled.Sub(g.Settled)
}

// A daemon that drops what it has when it is told to stop loses no request, if it is told
// when it has none; told at once it loses them all.
func TestCarelessDaemon(t *testing.T) {
	t.Parallel()
	for _, drain := range []Drain{DrainConnections, DrainSignal, DrainAuto} {
		t.Run(string(drain), func(t *testing.T) {
			t.Parallel()
			file := t.TempDir() + "/go"
			f := start(t, careless(t, drain))
			f.until("generation 1", live(1))
			f.disown() // which only auto asks for
			var answers []chan error
			for range 8 {
				answers = append(answers, f.begun(file))
			}
			f.mustReload()
			if drain != DrainSignal {
				st := f.until("the wait", f.happened("generation.finishing"))
				if signalled(1)(st) {
					t.Error("it was told to stop")
				}
				write(t, file, "")
			}
			for _, answer := range answers {
				if err := <-answer; (err == nil) != (drain != DrainSignal) {
					t.Errorf("a client got %v", err)
				}
			}
			if g := f.until("generation 1 to go", phase(1, state.Gone)).Generation(1); g.Exit != "killed by SIGTERM" {
				t.Errorf("it was %s", g.Exit)
			}
			write(t, file, "")
		})
	}
}

// One that knows its manager is told at once: it finishes what it has.
func TestAutoTrustsWhoTookItsListeners(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{false, true} {
		habits := []string{}
		if own {
			habits = []string{"notify"}
		}
		file := t.TempDir() + "/go"
		cfg := config(t, habits...)
		cfg.DrainTimeout = time.Hour
		f := start(t, cfg)
		f.until("generation 1", live(1))
		if own { // but it says READY=1
			f.disown()
		}
		answer := f.begun(file)
		f.mustReload()
		f.until("the stop signal", signalled(1))
		write(t, file, "")
		if err := <-answer; err != nil {
			t.Error(err)
		}
		f.until("generation 1 to go", phase(1, state.Gone))
	}
}

// Kept-alive connections over which nothing goes do not hold a drain, nor the end of a
// daemon that does not hear its stop signal.
func TestIdleConnectionsAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	for habit, exit := range map[string]string{"careless": "killed by SIGTERM", "deaf": "killed by SIGKILL"} {
		t.Run(habit, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, habit)
			cfg.DrainIdle, cfg.DrainTimeout, cfg.StopTimeout = 300*time.Millisecond, time.Hour, 5*time.Second
			if habit == "deaf" {
				cfg.StopTimeout = 100 * time.Millisecond
			}
			f := start(t, cfg)
			f.until("generation 1", live(1))
			f.disown()
			for range 3 {
				f.idle()
			}
			f.mustReload()
			if g := f.until("generation 1 to go", phase(1, state.Gone)).Generation(1); g.Exit != exit {
				t.Errorf("it was %s", g.Exit)
			}
		})
	}
}

// Unless all connections are to be waited for; then they have the drain timeout, and the
// daemon the stop timeout.
func TestIdleConnectionsAreWaitedForIfAskedTo(t *testing.T) {
	t.Parallel()
	cfg := config(t, "deaf")
	cfg.Drain, cfg.DrainIdle, cfg.DrainTimeout, cfg.StopTimeout = DrainConnections, 100*time.Millisecond, 2*time.Second, 200*time.Millisecond
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.idle()
	f.mustReload()
	st := f.until("generation 1 to go", phase(1, state.Gone))
	if w := waited(st, 1); w < cfg.DrainTimeout {
		t.Errorf("it was told to stop after %s", w)
	}
	g := st.Generation(1)
	if after := g.Ended.Sub(g.Signalled); after < cfg.StopTimeout || g.Exit != "killed by SIGKILL" {
		t.Errorf("it was %s after %s", g.Exit, after)
	}
	events := f.mustEvents()
	i := slices.IndexFunc(events, func(e Event) bool { return e.Kind == "generation.finished" })
	if i < 0 || events[i].Level != levelWarn || !strings.Contains(events[i].Text, "still has 1 connection after 2s") {
		t.Errorf("it was told: %+v", events)
	}
}

// One over which some data goes now and then is not idle.
func TestTrickleIsWaitedFor(t *testing.T) {
	t.Parallel()
	cfg := careless(t, DrainAuto)
	cfg.DrainIdle, cfg.DrainTimeout = 2*time.Second, 5*time.Second
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.disown()
	c := f.idle()
	ctx, cancel := context.WithCancel(t.Context())
	trickled := make(chan struct{})
	go func() {
		defer close(trickled)
		io.WriteString(c, "GET / HTTP/1.1\r\nX: ")
		for drops := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-drops.C {
			io.WriteString(c, "x")
		}
	}()
	defer func() { cancel(); <-trickled }()
	f.mustReload()
	st := f.until("the stop signal", signalled(1))
	if w := waited(st, 1); w < cfg.DrainTimeout {
		t.Errorf("it was told to stop after %s", w)
	}
}

// Reloads go on meanwhile, and the oldest of too many is not waited for any more.
func TestReloadsWhileOneFinishes(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/go"
	cfg := careless(t, DrainConnections)
	cfg.MaxDraining = 1
	f := start(t, cfg)
	f.until("generation 1", live(1))
	first := f.begun(file)
	f.mustReload()
	f.until("the wait", f.happened("generation.finishing"))
	second := f.begun(file)
	f.mustReload()
	if err := <-first; err == nil {
		t.Error("the oldest finished, more than may drain")
	}
	st := f.until("generation 1 to go", phase(1, state.Gone))
	if g := st.Generation(2); g.Phase != state.Draining || !g.Signalled.IsZero() {
		t.Errorf("generation 2: %+v", g)
	}
	write(t, file, "")
	if err := <-second; err != nil {
		t.Error(err)
	}
	f.until("generation 2 to go", phase(2, state.Gone))
}

// As long as it is told nothing, there is a way back.
func TestRollbackWhileOneFinishes(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/go"
	f := start(t, careless(t, DrainConnections))
	f.until("generation 1", live(1))
	answer := f.begun(file)
	f.mustReload()
	f.until("the wait", f.happened("generation.finishing"))
	if r, err := f.rollback(); err != nil || r.Generation != 1 || !r.Back {
		t.Errorf("%+v, %v", r, err)
	}
	f.until("generation 2 to go", phase(2, state.Gone))
	write(t, file, "")
	if err := <-answer; err != nil {
		t.Error(err)
	}
	st := f.until("generation 1 to have nothing left", func(s Status) bool {
		counted, err := f.Status(t.Context())
		return err == nil && counted.MeasuredOf(*counted.Generation(1)).Connections == 0
	})
	if !live(1)(st) || signalled(1)(st) || !st.Generation(1).Settled.IsZero() {
		t.Errorf("generation 1: %+v", st.Generation(1))
	}
	f.mustReload()
	f.until("generation 1 to go", phase(1, state.Gone))
}

// Stop and shutdown wait as a reload does; and while something is finished nobody is
// refused, since that takes the listeners down.
func TestStopFinishesFirst(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*fixture) error{
		"stop":     func(f *fixture) error { return f.Stop(f.t.Context()) },
		"shutdown": func(f *fixture) error { return f.Shutdown(f.t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := t.TempDir() + "/go"
			cfg := careless(t, DrainConnections)
			cfg.HoldTimeout = 20 * time.Millisecond
			f := start(t, cfg)
			f.until("generation 1", live(1))
			answer := f.begun(file)
			stopped := make(chan error, 1)
			go func() { stopped <- stop(f) }()
			f.until("the wait", f.happened("generation.finishing"))
			since := time.Now()
			st := f.until("the hold timeout", func(Status) bool { return time.Since(since) > 200*time.Millisecond })
			if st.Refusing || signalled(1)(st) {
				t.Errorf("while it finishes: refusing is %v, generation 1 %+v", st.Refusing, st.Generation(1))
			}
			write(t, file, "")
			if err := <-answer; err != nil {
				t.Error(err)
			}
			if err := <-stopped; err != nil {
				t.Error(err)
			}
			if name == "stop" {
				f.until("refusal", func(s Status) bool { return s.Refusing })
			}
		})
	}
}

// Whoever is told to end now does not wait, nor does who waits already.
func TestInterruptDoesNotFinish(t *testing.T) {
	t.Parallel()
	for _, waits := range []bool{false, true} {
		file := t.TempDir() + "/go"
		f := start(t, careless(t, DrainConnections))
		f.until("generation 1", live(1))
		answer := f.begun(file)
		if waits {
			f.mustReload()
			f.until("the wait", f.happened("generation.finishing"))
		}
		f.Interrupt()
		<-f.done
		if err := <-answer; err == nil {
			t.Error("the request was finished")
		}
	}
}

// What can't be counted has all the time that it may have.
func TestConnectionsThatCantBeCounted(t *testing.T) {
	t.Parallel()
	sys := realSystem()
	sys.count = func(context.Context, conns.Question) (conns.Count, error) {
		return conns.Count{}, errors.New("may not be seen")
	}
	cfg := careless(t, DrainConnections)
	cfg.DrainTimeout = 500 * time.Millisecond
	f := startOn(t, cfg, sys)
	f.until("generation 1", live(1))
	f.mustReload()
	st := f.until("generation 1 to go", phase(1, state.Gone))
	if w := waited(st, 1); w < cfg.DrainTimeout {
		t.Errorf("it was told to stop after %s", w)
	}
	n := 0
	for _, e := range f.mustEvents() {
		if e.Kind == "generation.uncounted" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("it was told %d times", n)
	}
}

// A look costs what it costs where there are many connections, so there are few of them.
func TestLooksAreFew(t *testing.T) {
	for _, c := range []struct{ open, atMost int }{
		{1, 1 + 8}, // at the start of the reload; after 0, 50, 150, 350, 750, 1550, 2550 ms, and one more
		{20_000, 1 + 4},
	} {
		t.Run(fmt.Sprint(c.open), func(t *testing.T) {
			t.Parallel()
			var looks atomic.Int32
			sys := realSystem()
			sys.count = func(context.Context, conns.Question) (conns.Count, error) {
				looks.Add(1)
				return conns.Count{Open: c.open}, nil
			}
			cfg := careless(t, DrainConnections)
			cfg.DrainTimeout = 3 * time.Second
			f := startOn(t, cfg, sys)
			f.until("generation 1", live(1))
			f.mustReload()
			f.until("generation 1 to go", phase(1, state.Gone))
			if n := int(looks.Load()); n < 3 || n > c.atMost {
				t.Errorf("%d looks in %s", n, cfg.DrainTimeout)
			}
		})
	}
}

// Who waits on the port may do so in live's queue: the old one has its own looked at.
func TestQueueOfLiveIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	sys := realSystem()
	sys.count = func(context.Context, conns.Question) (conns.Count, error) { return conns.Count{Waiting: 3}, nil }
	f := startOn(t, careless(t, DrainConnections), sys)
	f.until("generation 1", live(1))
	f.mustReload()
	f.until("generation 1 to go", phase(1, state.Gone))
}

// Where generations share a listener, the old one accepts until it is told to stop.
func TestSharedListenerIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	cfg := careless(t, DrainConnections)
	cfg.Shared = true
	f := start(t, cfg)
	if w := f.Warnings(); !slices.ContainsFunc(w, func(s string) bool { return strings.Contains(s, "not waited for") }) {
		t.Errorf("the warnings: %q", w)
	}
	f.until("generation 1", live(1))
	f.idle()
	f.mustReload()
	f.until("generation 1 to go", phase(1, state.Gone))
}

// The status tells of the connections what can be told from outside.
func TestStatusOfConnections(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.DrainIdle = 100 * time.Millisecond
	f := start(t, cfg)
	f.until("generation 1", live(1))
	began := time.Now()
	f.idle()
	f.stream()
	m := func(s Status) MeasuredSockets { return s.MeasuredOf(*s.Generation(1)) }
	st := f.untilCounted("both to be idle", func(s Status) bool { return m(s).Idle == 2 })
	if got := m(st); got.Connections != 2 || got.Oldest < cfg.DrainIdle || got.Oldest > time.Since(began) {
		t.Errorf("%+v; they were opened %s ago at most", got, time.Since(began))
	}
}
