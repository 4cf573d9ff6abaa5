package reload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// counts are how many stop signals each process noted.
func counts(file string) map[string]int {
	b, _ := os.ReadFile(file)
	all := map[string]int{}
	for pid := range strings.FieldsSeq(string(b)) {
		all[pid]++
	}
	return all
}

// Some daemons take a second stop signal as an order to drop what they have.
func TestStopSignalIsSentOnce(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "signals")
	cfg := config(t, "deaf", "count="+file)
	cfg.MaxDraining, cfg.StopTimeout, cfg.DrainTimeout = 2, time.Minute, time.Minute
	f := start(t, cfg)
	f.until("generation 1", live(1))
	for n := 2; n <= 5; n++ { // more than may drain: the oldest are told to hurry
		f.mustReload()
		f.until("the signal", func(s Status) bool { return !s.Generation(n-1).Signalled.IsZero() && len(counts(file)) == n-1 })
	}
	f.Interrupt()
	f.until("the last signal", func(Status) bool { return len(counts(file)) == 5 })
	f.end()
	for pid, n := range counts(file) {
		if n != 1 {
			t.Errorf("process %s got %d stop signals", pid, n)
		}
	}
}

// The oldest of too many draining ones is ended, whatever it still has.
func TestMaxDraining(t *testing.T) {
	t.Parallel()
	cfg := config(t, "deaf")
	cfg.MaxDraining, cfg.StopTimeout, cfg.DrainTimeout = 1, 200*time.Millisecond, time.Minute
	f := start(t, cfg)
	f.until("generation 1", live(1))
	for n := 1; n <= 2; n++ {
		if _, by := f.stream(); by != strconv.Itoa(n) {
			t.Fatalf("answered by %q", by)
		}
		f.mustReload()
		f.until("the signal", func(s Status) bool { return !s.Generation(n).Signalled.IsZero() })
	}
	st := f.until("generation 1 to go", phase(1, state.Gone))
	if st.Generation(1).Exit != "killed by SIGKILL" || st.Generation(2).Phase != state.Draining {
		t.Errorf("generations: %+v", st.Generations)
	}
	if !f.happened("generation.overdue")(st) {
		t.Error("there is no event of it")
	}
}

// Connections get the drain timeout to finish, and then no more.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.StopTimeout, cfg.DrainTimeout = 50*time.Millisecond, 2*time.Second
	f := start(t, cfg)
	f.until("generation 1", live(1))
	c, _ := f.stream()
	r := f.mustReload()
	if r.DrainTimeout != 2*time.Second || len(r.Draining) != 1 {
		t.Errorf("the reload answered %+v", r)
	}
	g := f.until("generation 1 to go", phase(1, state.Gone)).Generation(1)
	if took := g.Ended.Sub(g.Signalled); took < 2*time.Second || g.Exit != "killed by SIGKILL" {
		t.Errorf("it had %s and was %s", took, g.Exit)
	}
	if _, err := c.Read(make([]byte, 64)); err == nil {
		t.Error("the connection goes on")
	}
}

// Without connections there is nothing to wait for beyond the stop timeout.
func TestStopTimeoutWithoutConnections(t *testing.T) {
	t.Parallel()
	cfg := config(t, "deaf")
	cfg.StopTimeout, cfg.DrainTimeout = 100*time.Millisecond, time.Hour
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.mustReload()
	if g := f.until("generation 1 to go", phase(1, state.Gone)).Generation(1); g.Exit != "killed by SIGKILL" {
		t.Errorf("it was %s", g.Exit)
	}
}

// One that no longer has connections, and does not end, is not given the rest of the
// drain timeout.
func TestConnectionsEndBeforeTheDrainTimeout(t *testing.T) {
	t.Parallel()
	cfg := config(t, "deaf")
	cfg.StopTimeout, cfg.DrainTimeout = 50*time.Millisecond, time.Hour
	f := start(t, cfg)
	f.until("generation 1", live(1))
	c, _ := f.stream()
	f.mustReload()
	f.until("the stop timeout", func(s Status) bool {
		at := s.Generation(1).Signalled
		return !at.IsZero() && time.Since(at) > 200*time.Millisecond
	})
	c.Close()
	if g := f.until("generation 1 to go", phase(1, state.Gone)).Generation(1); g.Exit != "killed by SIGKILL" {
		t.Errorf("it was %s", g.Exit)
	}
}

// The drain timeout does not shorten the stop timeout.
func TestDrainTimeoutBelowTheStopTimeout(t *testing.T) {
	t.Parallel()
	cfg := config(t, "deaf")
	cfg.StopTimeout, cfg.DrainTimeout = time.Second, time.Millisecond
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.mustReload()
	g := f.until("generation 1 to go", phase(1, state.Gone)).Generation(1)
	if took := g.Ended.Sub(g.Signalled); took < time.Second || g.Exit != "killed by SIGKILL" {
		t.Errorf("it had %s and was %s", took, g.Exit)
	}
}

// A generation finishes what it has, however long the reloads go on.
func TestConnectionOutlivesReloads(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.DrainTimeout = time.Minute
	f := start(t, cfg)
	f.until("generation 1", live(1))
	c, _ := f.stream()
	for range 2 {
		f.mustReload()
	}
	st := f.untilCounted("generation 2 to go", phase(2, state.Gone))
	if st.Generation(1).Phase != state.Draining || st.MeasuredOf(*st.Generation(1)).Connections != 1 {
		t.Errorf("generation 1: %+v, %+v", st.Generation(1), st.Measured)
	}
	c.Close()
	if g := f.until("generation 1 to go", phase(1, state.Gone)).Generation(1); g.Exit != "exit status 0" {
		t.Errorf("it ended with %s", g.Exit)
	}
}

// reloading is a service whose reload hangs, with its answer.
func reloading(t *testing.T, habits ...string) (*fixture, <-chan error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "habits")
	f := start(t, config(t, append(habits, "habits="+file)...))
	f.until("generation 1", live(1))
	write(t, file, "hang")
	answer := make(chan error, 1)
	go func() { _, err := f.reload(); answer <- err }()
	f.until("generation 2 to run", func(s Status) bool { return phase(2, state.Starting)(s) && s.Generation(2).PID != 0 })
	os.Remove(file)
	return f, answer
}

// Clients that come between a stop and a start wait; none is lost, and none goes to
// the candidate that was given up.
func TestStopDuringAReload(t *testing.T) {
	t.Parallel()
	f, answer := reloading(t)
	stop := f.load()
	waiting := make(chan error, 1)
	go func() { _, err := f.reload(); waiting <- err }() // joins the next, or comes too late
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := failure(t, <-answer); got.Code != CodeFailed || !strings.Contains(got.Reason, "was given up: the service was stopped") {
		t.Errorf("the reload: %#v", got)
	}
	failure(t, <-waiting)
	f.until("all to go", func(s Status) bool { return goneOf(2)(s) && phase(1, state.Gone)(s) && s.Queues[0].Queue > 0 })
	if _, err := f.reload(); failure(t, err).Code != CodeNotRunning {
		t.Errorf("reload of a stopped service: %v", err)
	}
	r, err := f.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Start(t.Context()); failure(t, err).Code != CodeFailed {
		t.Errorf("start of one that runs: %v", err)
	}
	f.until("the waiting clients to be served", func(s Status) bool { return len(s.Queues) == 0 })
	if got := f.generation(); got != strconv.Itoa(r.Generation) {
		t.Errorf("answered by %q", got)
	}
	if seen := stop(); seen["2"] > 0 {
		t.Errorf("clients were answered by %v", seen)
	}
}

func TestShutdownDuringAReload(t *testing.T) {
	t.Parallel()
	f, answer := reloading(t)
	if err := f.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err == nil {
		t.Error("the reload succeeded")
	}
	<-f.done
	if f.code != 0 || f.err != nil {
		t.Errorf("ended with %d, %v", f.code, f.err)
	}
	if _, err := f.reload(); !errors.Is(err, ErrEnded) {
		t.Errorf("reload of a service that has ended: %v", err)
	}
	if err := f.Shutdown(t.Context()); err != nil {
		t.Errorf("shutdown of a service that has ended: %v", err)
	}
	if err := f.Stop(t.Context()); !errors.Is(err, ErrEnded) {
		t.Errorf("stop of a service that has ended: %v", err)
	}
}

func TestInterruptDuringTheStart(t *testing.T) {
	t.Parallel()
	cfg := config(t, "hang")
	cfg.ReadyTimeout = time.Hour
	f := start(t, cfg)
	f.until("generation 1 to run", func(s Status) bool { return len(s.Generations) == 1 && s.Generations[0].PID != 0 })
	f.Interrupt()
	<-f.done
	if f.code != 0 || f.err != nil {
		t.Errorf("ended with %d, %v", f.code, f.err)
	}
}

// The first one asks the daemon, the second does not.
func TestSecondInterruptKills(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "signals")
	cfg := config(t, "deaf", "count="+file)
	cfg.StopTimeout, cfg.DrainTimeout = time.Hour, time.Hour
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.Interrupt()
	f.until("the stop signal", func(Status) bool { return len(counts(file)) == 1 })
	select {
	case <-f.done:
		t.Fatal("the first interrupt ended it")
	default:
	}
	f.Interrupt()
	<-f.done
	if f.code != 128+int(syscall.SIGKILL) {
		t.Errorf("ended with %d, %v", f.code, f.err)
	}
}

func TestInterruptGivesTheStopTimeout(t *testing.T) {
	t.Parallel()
	cfg := config(t, "deaf")
	cfg.StopTimeout, cfg.DrainTimeout = 100*time.Millisecond, time.Hour
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.stream() // is not waited for
	f.Interrupt()
	<-f.done
	if f.code != 128+int(syscall.SIGKILL) {
		t.Errorf("ended with %d, %v", f.code, f.err)
	}
}

// Whoever ends the context of Run does not wait any more.
func TestEndOfTheContextKills(t *testing.T) {
	t.Parallel()
	cfg := config(t, "deaf")
	cfg.StopTimeout = time.Hour
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{Service: s, t: t, log: &lockedBuffer{}, out: &lockedBuffer{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() { code, _ := s.Run(ctx); ended <- code }()
	f.until("generation 1", live(1))
	cancel()
	if code := <-ended; code != 128+int(syscall.SIGKILL) {
		t.Errorf("ended with %d", code)
	}
}

// What the daemon ends with after a shutdown is what the holder ends with, unless
// it is the stop signal that ended it.
func TestCodeAfterAShutdown(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]int{
		"exec sleep 600": 0,
		"trap 'exit 9' TERM; while :; do sleep 0.01; done":       9,
		"trap 'exit 0' TERM; while :; do sleep 0.01; done":       0,
		"trap 'kill -INT $$' TERM; while :; do sleep 0.01; done": 128 + int(syscall.SIGINT),
	} {
		cfg := config(t)
		cfg.Command = []string{"sh", "-c", script + " # its commands"}
		cfg.Ready.Mode, cfg.Ready.Delay = "delay", 300*time.Millisecond // until the trap is set
		f := start(t, cfg)
		f.until("generation 1", live(1))
		if err := f.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-f.done
		if f.code != want {
			t.Errorf("%s: ended with %d, %v", script, f.code, f.err)
		}
	}
}
