package reload

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// In a crash loop the moments in which a generation is live do not begin the hold
// timeout anew: it counts from the first crash.
func TestHoldTimeoutCountsFromTheFirstCrash(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	pid := f.until("generation 1", live(1)).Live().PID
	f.ask(t.Context(), func() { f.st.Crashes, f.lastLive = 9, time.Now().Add(-time.Hour) })
	syscall.Kill(pid, syscall.SIGKILL)
	if st := f.until("refusal", func(s Status) bool { return s.Refusing }); st.Next != 2 {
		t.Errorf("the next generation is %d", st.Next)
	}
}

// It counts from the stop, however long nobody had been live before.
func TestHoldTimeoutCountsFromTheStop(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	f.ask(t.Context(), func() { f.lastLive = time.Now().Add(-time.Hour) })
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := f.Status(t.Context()); err != nil || st.Refusing {
		t.Errorf("refusing: %+v, %v", st.Service, err)
	}
}

// What kept the service from refusing was that its daemon had not settled. Once it
// has, clients are refused, although the daemon finishes what it has.
func TestHoldTimeoutThatEndedWhileSettling(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.HoldTimeout, cfg.DrainTimeout = 20*time.Millisecond, time.Minute
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.stream()
	c, err := net.Dial("tcp", f.Addrs()[0].Addr) // accepted, and not answered yet
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f.untilCounted("the connections", func(s Status) bool { return s.MeasuredOf(*s.Generation(1)).Connections == 2 })
	stopped := make(chan error, 1)
	go func() { stopped <- f.Stop(t.Context()) }()
	f.until("the stop", phase(1, state.Draining))
	since := time.Now()
	f.until("the hold timeout", func(Status) bool { return time.Since(since) > 200*time.Millisecond })
	c.Close()
	if st := f.until("refusal", func(s Status) bool { return s.Refusing }); st.Generation(1).Phase != state.Draining {
		t.Errorf("refused when generation 1 was %+v", st.Generation(1))
	}
	f.Interrupt()
	f.Interrupt()
	<-f.done
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// The time is over while a candidate starts, which fails: clients are refused then,
// not after the next.
func TestHoldTimeoutThatEndedDuringAStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := config(t, "until="+dir+"/go", "exit=3")
	cfg.Restart, cfg.HoldTimeout = RestartAlways, 20*time.Millisecond
	f := start(t, cfg)
	since := time.Now()
	f.until("the hold timeout", func(Status) bool { return time.Since(since) > 200*time.Millisecond })
	write(t, dir+"/go", "")
	f.until("refusal", f.happened("hold.refusing"))
	for _, e := range f.mustEvents() {
		if e.Kind == "hold.refusing" {
			break
		}
		if e.Generation > 1 {
			t.Errorf("before it, %+v", e)
		}
	}
}
