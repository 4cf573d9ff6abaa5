package reload

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/state"
)

func TestIgnoresSIGTERM(t *testing.T) {
	t.Parallel()
	cfg := config(t, "deaf", "child")
	cfg.StopTimeout, cfg.DrainTimeout = 200*time.Millisecond, 200*time.Millisecond
	f := start(t, cfg)
	first := f.until("generation 1", live(1)).Live().PID
	f.mustReload()
	st := f.until("generation 1 to be killed", phase(1, state.Gone))
	if got := st.Generation(1).Exit; got != "killed by SIGKILL" {
		t.Errorf("it ended as %q", got)
	}
	if members, err := conns.Group(first); err != nil || len(members) > 0 {
		t.Errorf("its process group still has members: %v, %v", members, err)
	}
}

func TestEndsWithTheDaemonsCode(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Restart = RestartNo
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.get("/die")
	<-f.done
	if f.code != 7 {
		t.Errorf("ended with %d, %v", f.code, f.err)
	}
}

func TestStopHoldsClientsForStart(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	answered := make(chan string)
	go func() { answered <- f.generation() }()
	f.until("a client to wait", func(s Status) bool { return len(s.Queues) == 1 && s.Queues[0].Queue == 1 })
	if r, err := f.Start(t.Context()); err != nil || r.Generation != 2 {
		t.Fatalf("start: %+v, %v", r, err)
	}
	if got := <-answered; got != "2" {
		t.Errorf("the client that waited was answered by %q", got)
	}
}

func TestHoldTimeoutRefuses(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.HoldTimeout = 50 * time.Millisecond
	f := start(t, cfg)
	f.until("generation 1", live(1))
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.until("refusal", func(s Status) bool { return s.Refusing })
	if got := f.get("/"); got != "" {
		t.Errorf("refusing, but answered %q", got)
	}
	if _, err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.generation(); got != "2" {
		t.Errorf("answered by %q", got)
	}
}

func TestShutdownEndsWithZero(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	if err := f.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-f.done
	if f.code != 0 || f.err != nil {
		t.Errorf("ended with %d, %v", f.code, f.err)
	}
}

// While a service ends, what it has is finished and new clients are refused at
// once: a load balancer looks elsewhere then.
func TestShutdownFinishesAndRefuses(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	slow, file := make(chan string), filepath.Join(t.TempDir(), "go")
	go func() { slow <- f.get("/wait" + file) }()
	f.untilCounted("a request in flight", func(s Status) bool { return s.MeasuredOf(*s.Generation(1)).Connections == 1 })
	ended := make(chan error, 1)
	go func() { ended <- f.Shutdown(t.Context()) }()
	f.until("the end to begin", phase(1, state.Draining))
	if _, err := net.Dial("tcp", f.Addrs()[0].Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new client got %v", err)
	}
	os.WriteFile(file, nil, 0o600)
	if got := <-slow; !strings.HasPrefix(got, "1 ") {
		t.Errorf("the request in flight was answered by %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A reload that waits for the one under way is given up with it; the next start does
// not bring it back.
func TestStopGivesUpTheReloadThatWaits(t *testing.T) {
	t.Parallel()
	f, underWay := reloading(t)
	waiting := make(chan answer, 1)
	f.ask(t.Context(), func() { f.request(ReloadOptions{}, waiting) })
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	failure(t, <-underWay)
	select {
	case a := <-waiting:
		if got := failure(t, a.failure); got.Code != CodeFailed || got.Reason != "the service was stopped" {
			t.Errorf("the one that waited: %#v", got)
		}
	default:
		t.Error("the one that waited was not answered")
	}
	if r, err := f.Start(t.Context()); err != nil || r.Generation != 3 {
		t.Errorf("start: %+v, %v", r, err)
	}
	if st, err := f.Status(t.Context()); err != nil || st.Next != 4 {
		t.Errorf("the next generation is %d, %v", st.Next, err)
	}
}

// Who kills does not wait for what is on its way either: a handshake would be given
// up after 3 s.
func TestSecondInterruptEndsSettling(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Specs = specs(t, "http=127.0.0.1:0,defer-accept=30s")
	f := start(t, cfg)
	f.until("generation 1", live(1))
	c, err := net.Dial("tcp", f.Addrs()[0].Addr) // half-open until it has sent something
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f.mustReload()
	since := time.Now()
	f.until("settling to be under way", func(Status) bool { return time.Since(since) > 500*time.Millisecond })
	f.Interrupt()
	f.Interrupt()
	<-f.done
	settled := slices.IndexFunc(f.journal.last, func(e Event) bool { return e.Kind == "generation.settled" })
	if settled < 0 {
		t.Fatal("generation 1 has not settled")
	}
	e := f.journal.last[settled]
	if took := e.Fields["took_ms"].(int64); took >= 3000 || e.Fields["half_open"] != 1 || e.Level != levelWarn {
		t.Errorf("it settled as %+v", e)
	}
}

// When the daemon has ended for good, those that drain get the stop timeout and no
// more.
func TestDrainingOnesEndWithTheDaemon(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Restart, cfg.StopTimeout, cfg.DrainTimeout = RestartNo, 200*time.Millisecond, time.Hour
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.stream()
	f.mustReload()
	f.until("the signal", func(s Status) bool { return !s.Generation(1).Signalled.IsZero() })
	f.get("/die")
	select {
	case <-f.done:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if f.code != 7 || f.err != nil {
		t.Errorf("ended with %d, %v", f.code, f.err)
	}
}

// held settles when it is closed.
type held chan struct{}

func (h held) Wait(ctx context.Context) (handoff.Settled, error) {
	select {
	case <-h:
		return handoff.Settled{}, nil
	case <-ctx.Done():
		return handoff.Settled{}, context.Cause(ctx)
	}
}

// One that ends by itself before it has settled is not told to stop any more.
func TestEndBeforeTheStopSignal(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	pid := f.until("generation 1", live(1)).Live().PID
	settling := make(held)
	f.ask(t.Context(), func() { f.sys.settler = func(...*handoff.Listener) settler { return settling } })
	f.mustReload()
	syscall.Kill(pid, syscall.SIGKILL)
	f.until("its end to be known", func(s Status) bool { return s.Generation(1).Exit != "" })
	close(settling)
	st := f.until("generation 1 to go", phase(1, state.Gone))
	if g := st.Generation(1); !g.Signalled.IsZero() || f.happened("generation.stopping")(st) {
		t.Errorf("it was told to stop: %+v", g)
	}
}
