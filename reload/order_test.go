package reload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/state"
)

// A live daemon shuts its listener down, and a reload is asked for before the guard
// is heard.
func TestReloadMeetsAListenerShutDown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := start(t, config(t, "habits="+dir+"/habits"))
	f.until("generation 1", live(1))
	write(t, dir+"/habits", "exit=3")
	reply := make(chan answer, 1)
	f.ask(t.Context(), func() {
		unix.Shutdown(f.runs[1].listeners.all()[0].FD(), unix.SHUT_RDWR)
		f.request(ReloadOptions{}, reply)
	})
	if a := <-reply; a.failure == nil || !strings.Contains(a.failure.Error(), "exit status 3") {
		t.Errorf("the reload: %v", a.failure)
	}
	f.until("the listener to listen again", func(Status) bool { _, limit, err := f.liveQueue(); return err == nil && limit > 0 })
	write(t, dir+"/habits", "")
	f.mustReload()
}

// A start that comes while the service stops answers whoever stopped it: it will
// not have stopped.
func TestStartDuringAStop(t *testing.T) {
	t.Parallel()
	f := start(t, config(t, "deaf"))
	f.until("generation 1", live(1))
	stopped := make(chan error, 1)
	go func() { stopped <- f.Stop(context.WithoutCancel(t.Context())) }()
	f.until("the stop", phase(1, state.Draining))
	if _, err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-stopped:
		var failure *Failure
		if !errors.As(err, &failure) {
			t.Errorf("the stop was answered with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the stop was not answered")
	}
}

// A start that comes while a reload is being given up is one of its own, and does not
// end with that.
func TestStartDuringAStopDuringAReload(t *testing.T) {
	t.Parallel()
	f, underWay := reloading(t)
	reply := make(chan answer, 1)
	f.ask(t.Context(), func() {
		f.st.Goal = state.Stop
		f.windDown()
		f.requestStart(reply)
	})
	failure(t, <-underWay)
	if a := <-reply; a.failure != nil || a.result.Generation != 3 {
		t.Errorf("the start: %+v", a)
	}
}

// A candidate that starts slowly keeps its listener although live has crashed and
// the hold timeout is over.
func TestHoldTimeoutLeavesACandidateAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := config(t, "habits="+dir+"/habits")
	cfg.HoldTimeout = 100 * time.Millisecond
	f := start(t, cfg)
	pid := f.until("generation 1", live(1)).Live().PID
	write(t, dir+"/habits", "until="+dir+"/go")
	answer := make(chan error, 1)
	go func() { _, err := f.reload(); answer <- err }()
	f.until("generation 2 to run", func(s Status) bool { return phase(2, state.Starting)(s) && s.Generation(2).PID != 0 })
	syscall.Kill(pid, syscall.SIGKILL)
	st := f.until("the crash", f.happened("generation.crashed"))
	f.until("the hold timeout", func(s Status) bool { return time.Since(st.Generation(1).Ended) > 300*time.Millisecond })
	write(t, dir+"/go", "")
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	if got := f.generation(); got != "2" {
		t.Errorf("answered by %q", got)
	}
}

// What is in flight when the service is stopped is finished, however short the hold
// timeout is.
func TestHoldTimeoutWaitsForSettling(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.HoldTimeout = 20 * time.Millisecond
	f := start(t, cfg)
	f.until("generation 1", live(1))
	c, err := net.Dial("tcp", f.Addrs()[0].Addr) // accepted, and not answered yet
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f.untilCounted("the connection", func(s Status) bool { return s.MeasuredOf(*s.Generation(1)).Connections == 1 })
	stopped := make(chan error, 1)
	go func() { stopped <- f.Stop(t.Context()) }()
	f.until("the stop", phase(1, state.Draining))
	since := time.Now()
	f.until("the hold timeout", func(Status) bool { return time.Since(since) > 200*time.Millisecond })
	c.Close()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	f.until("refusal", func(s Status) bool { return s.Refusing })
	if strings.Contains(f.out.String(), "invalid argument") {
		t.Error("its listener was shut down before it was told to stop")
	}
}

// Without a live generation from the start, nobody is kept waiting for ever either.
func TestHoldTimeoutOfTheFirstStart(t *testing.T) {
	t.Parallel()
	cfg := config(t, "exit=3")
	cfg.Restart, cfg.HoldTimeout = RestartAlways, 300*time.Millisecond
	f := start(t, cfg)
	f.until("refusal", func(s Status) bool { return s.Refusing })
}

// Of two who ask for the same live generation to be replaced, one was faster.
func TestReloadIfGenerationIsForOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := start(t, config(t, "habits="+dir+"/habits"))
	f.until("generation 1", live(1))
	write(t, dir+"/habits", "until="+dir+"/go")
	first, second := make(chan answer, 1), make(chan answer, 1)
	f.ask(t.Context(), func() {
		f.request(ReloadOptions{IfGeneration: 1}, first)
		f.request(ReloadOptions{IfGeneration: 1}, second)
	})
	write(t, dir+"/go", "")
	if a := <-first; a.failure != nil {
		t.Error(a.failure)
	}
	var failure *Failure
	if a := <-second; !errors.As(a.failure, &failure) || failure.Code != CodeRefused {
		t.Errorf("the second: %+v", a)
	}
	if st, err := f.Status(t.Context()); err != nil || st.Next != 3 {
		t.Errorf("the next generation is %d, %v", st.Next, err)
	}
}

// The workers of a candidate that has failed shut its listener down when they are
// told to stop; what they had is out of the way for the next candidate.
func TestFailedCandidatesListenerIsNotMended(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	bad := Change{Command: append(f.command(), "worker", "exit=3")}
	if _, err := f.change(bad); err == nil {
		t.Fatal("it went live")
	}
	f.until("its worker to shut the listener down", func(Status) bool { return strings.Contains(f.out.String(), "shut down") })
	for range 3 { // the guard's word may come a moment later
		if _, err := f.change(bad); err == nil {
			t.Fatal("it went live")
		}
	}
	if strings.Contains(f.log.String(), "listener.shutdown") {
		t.Error("it was mended")
	}
}

// stuck is somebody who does not take what is written.
type stuck struct {
	once     sync.Once
	began    chan struct{}
	released chan struct{}
}

func (w *stuck) Write(b []byte) (int, error) {
	w.once.Do(func() { close(w.began) })
	<-w.released
	return len(b), nil
}

// What the daemons say is passed on to somebody who does not read; ending is not
// kept waiting by that.
func TestEndsThoughNobodyReadsTheOutput(t *testing.T) {
	t.Parallel()
	w := &stuck{began: make(chan struct{}), released: make(chan struct{})}
	defer close(w.released)
	s, err := New(t.Context(), config(t, "lines=1"))
	if err != nil {
		t.Fatal(err)
	}
	s.cfg.Stdout = w
	done := make(chan struct{})
	go func() { s.Run(context.Background()); close(done) }()
	<-w.began
	s.Interrupt()
	s.Interrupt()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
}

// Once a shutdown is answered, the address is free.
func TestAddressIsFreeAfterShutdown(t *testing.T) {
	t.Parallel()
	for range 10 {
		f := start(t, config(t))
		f.until("generation 1", live(1))
		if err := f.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s, err := New(t.Context(), Config{Name: "next", Command: []string{"x"}, Specs: specs(t, f.Addrs()[0].Addr)}); err != nil {
			t.Fatal(err)
		} else {
			s.release()
		}
	}
}

func TestOwnListenersAreNotForeign(t *testing.T) {
	t.Parallel()
	f := start(t, config(t, "notify"))
	f.until("generation 1", live(1))
	for range 30 {
		f.mustReload()
	}
	if strings.Contains(f.log.String(), "listener.foreign") {
		t.Error("its own listener was reported")
	}
}

// A client whose handshake was under way when live crashed is served by a candidate
// that has listeners of its own: they are closed when they have settled.
func TestCrashDuringAReloadSettles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := config(t, "habits="+dir+"/habits")
	cfg.Specs = specs(t, "http=127.0.0.1:0,defer-accept=30s")
	r := &relay{t: t}
	cfg.Relay = r.serve
	f := start(t, cfg)
	answer := f.crashDuringAReload(dir)
	c, err := net.Dial("tcp", f.Addrs()[0].Addr) // half-open until it has sent something
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	write(t, dir+"/go", "")
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
	c.SetDeadline(time.Now().Add(patience))
	if b, err := io.ReadAll(c); err != nil || !strings.Contains(string(b), "relayed") {
		t.Errorf("the client got %q, %v", b, err)
	}
}

// One endpoint refuses and another could not: a start makes both listen.
func TestStartAfterHalfARefusal(t *testing.T) {
	t.Parallel()
	cfg := config(t, "notify")
	cfg.Specs, cfg.Ready.Mode = specs(t, "a=127.0.0.1:0", "b=127.0.0.1:0"), ready.Notify // it accepts from the first only
	f := start(t, cfg)
	f.until("generation 1", live(1))
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var refused error
	f.ask(t.Context(), func() { refused = f.eps[0].Refuse() })
	if refused != nil {
		t.Fatal(refused)
	}
	if _, err := f.Start(t.Context()); err != nil {
		t.Error(err)
	}
}
