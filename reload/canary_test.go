package reload

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/state"
)

// withCanary is a service whose reload has made generation 2 a canary beside 1, and the
// answer to that reload, which is still to come.
func withCanary(t *testing.T, cfg Config, o CanaryOptions) (*fixture, <-chan answer) {
	t.Helper()
	cfg.Canary = &o
	f := start(t, cfg)
	f.until("generation 1", live(1))
	answers := f.reloads(ReloadOptions{Reason: "test"})
	f.until("the canary", phase(2, state.Canary))
	return f, answers
}

func (f *fixture) reloads(o ReloadOptions) <-chan answer {
	answers := make(chan answer, 1)
	go func() {
		r, err := f.Reload(f.t.Context(), o)
		answers <- answer{r, err}
	}()
	return answers
}

// answeredBy counts who answers n requests, each on a connection of its own.
func (f *fixture) answeredBy(n int) map[string]int {
	seen := map[string]int{}
	for range n {
		seen[f.generation()]++
	}
	return seen
}

// halt stops a process, which takes effect when each of its threads has come by.
func (f *fixture) halt(pid int) {
	f.t.Helper()
	syscall.Kill(pid, syscall.SIGSTOP)
	f.until("all threads to stop", func(Status) bool {
		stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		return !slices.ContainsFunc(stats, func(path string) bool {
			b, err := os.ReadFile(path)
			return err == nil && !strings.HasPrefix(string(b[bytes.LastIndexByte(b, ')')+1:]), " T")
		})
	})
}

// All begins with live; the canary has what it is given, and at the end of its time all.
func TestCanary(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Canary = &CanaryOptions{Share: 0.5, For: time.Second}
	f := start(t, cfg)
	if st := f.until("generation 1", live(1)); f.happened("canary.begun")(st) {
		t.Error("the first generation was a canary")
	}
	stop := f.load()
	answers := f.reloads(ReloadOptions{Reason: "test"})
	st := f.until("the canary", phase(2, state.Canary))
	if st.Share != 0.5 || st.CanaryEnds.IsZero() || st.Live().Number != 1 || st.Generation(2).Ready.IsZero() {
		t.Errorf("the state: %+v", st.Service)
	}
	seen := f.answeredBy(40)
	if seen["1"] == 0 || seen["2"] == 0 || len(seen) != 2 { // by chance in one of 10¹² runs
		t.Errorf("answered by %v", seen)
	}
	a := <-answers
	if a.failure != nil || a.result.Tried < time.Second || !slices.Equal(a.result.Draining, []int{1}) {
		t.Errorf("the answer: %+v", a)
	}
	if text := a.result.String(); !strings.Contains(text, " ms as a canary · generation 1 drains") {
		t.Errorf("it says %q", text)
	}
	st = f.until("the end of generation 1", phase(1, state.Gone))
	stop()
	if seen := f.answeredBy(5); seen["2"] != 5 || st.Share != 0 || !st.CanaryEnds.IsZero() || st.Relayed != 0 {
		t.Errorf("after it: %v, %+v", seen, st.Service)
	}
}

// Without an end it waits for somebody to decide, who may change the share.
func TestCanaryUntilItIsPromoted(t *testing.T) {
	t.Parallel()
	f, answers := withCanary(t, config(t), CanaryOptions{Share: 1})
	if seen := f.answeredBy(5); seen["2"] != 5 {
		t.Errorf("with all: %v", seen)
	}
	r, err := f.Canary(t.Context(), 0)
	if err != nil || r.String() != "web: generation 2 gets 0% of new connections" {
		t.Errorf("%s, %v", r, err)
	}
	if seen := f.answeredBy(5); seen["1"] != 5 {
		t.Errorf("with nothing: %v", seen)
	}
	promoted, err := f.Promote(t.Context())
	if err != nil || promoted.Generation != 2 {
		t.Errorf("%+v, %v", promoted, err)
	}
	if a := <-answers; a.failure != nil || a.result.Generation != 2 {
		t.Errorf("the reload: %+v", a)
	}
	if seen := f.answeredBy(5); seen["2"] != 5 {
		t.Errorf("promoted: %v", seen)
	}
	_, err = f.Promote(t.Context())
	refused(t, err, CodeFailed, "has no canary to promote")
	_, err = f.Canary(t.Context(), 0.5)
	refused(t, err, CodeFailed, "has no candidate")
	_, err = f.Canary(t.Context(), 1.5)
	refused(t, err, CodeFailed, "want 0 to 1")
}

// One that dies costs what it had in hand; live has everything again at once.
func TestCanaryDies(t *testing.T) {
	t.Parallel()
	f, answers := withCanary(t, config(t, "say=hello"), CanaryOptions{Share: 1, For: time.Hour})
	syscall.Kill(f.until("the canary", phase(2, state.Canary)).Generation(2).PID, syscall.SIGKILL)
	fault := failure(t, (<-answers).failure)
	if fault.Code != CodeRolledBack || fault.Exit != "killed by SIGKILL" || fault.ExitCode != 137 || fault.Generation != 2 || !slices.Contains(fault.Lines, "hello") {
		t.Errorf("%#v", fault)
	}
	if seen := f.answeredBy(5); seen["1"] != 5 {
		t.Errorf("answered by %v", seen)
	}
	st := f.until("its end", phase(2, state.Gone))
	if live := st.Live(); live.Number != 1 || !live.Signalled.IsZero() || st.Share != 0 || st.Next != 3 {
		t.Errorf("the state: %+v", st.Service)
	}
	f.cfg.Canary = nil
	f.mustReload()
}

// What a canary has begun it finishes, though it is taken its share away.
func TestCanaryFailsItsProbe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := config(t)
	cfg.Ready = ready.Options{Mode: ready.Probe, Check: ready.Check{Kind: "exec", Command: "test $GAPLESS_GENERATION = 1 || test ! -e " + dir + "/bad"}}
	f, answers := withCanary(t, cfg, CanaryOptions{Share: 1, For: time.Hour})
	last := make(chan string, 1)
	go func() {
		body, err := request("http://" + f.Addrs()[0].Addr + "/wait" + dir + "/go")
		last <- fmt.Sprint(body, err)
	}()
	f.untilCounted("a request", func(s Status) bool { return s.MeasuredOf(*s.Generation(2)).Connections == 1 })
	write(t, dir+"/bad", "")
	refused(t, (<-answers).failure, CodeRefused, "failed its check during its canary")
	if seen := f.answeredBy(3); seen["1"] != 3 {
		t.Errorf("answered by %v", seen)
	}
	write(t, dir+"/go", "")
	if got := <-last; !strings.HasPrefix(got, "2 ") || !strings.HasSuffix(got, "<nil>") {
		t.Errorf("its last request: %s", got)
	}
	if st := f.until("its end", phase(2, state.Gone)); st.Generation(2).Exit != "exit status 0" || st.Generation(2).Signalled.IsZero() {
		t.Errorf("the canary: %+v", st.Generation(2))
	}
}

// A daemon that is ready without a probe is watched all the same: it must accept.
func TestCanaryStopsAccepting(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Ready.Timeout = 300 * time.Millisecond
	f, answers := withCanary(t, cfg, CanaryOptions{Share: 0, For: time.Hour})
	f.halt(f.until("the canary", phase(2, state.Canary)).Generation(2).PID)
	refused(t, (<-answers).failure, CodeRefused, "has not accepted a connection")
}

func TestCanaryShutsItsListenerDown(t *testing.T) {
	t.Parallel()
	f, answers := withCanary(t, config(t), CanaryOptions{Share: 1, For: time.Hour})
	f.get("/shutdown")
	refused(t, (<-answers).failure, CodeNotReady, "shut its listener at 127.0.0.1:")
	if seen := f.answeredBy(3); seen["1"] != 3 {
		t.Errorf("answered by %v", seen)
	}
	f.until("its end", phase(2, state.Gone))
}

// Live dies beside a canary: that is ready, and has everything, with who waits.
func TestLiveDiesBesideACanary(t *testing.T) {
	t.Parallel()
	f, answers := withCanary(t, config(t), CanaryOptions{Share: 0, For: time.Hour})
	syscall.Kill(f.until("live", live(1)).Live().PID, syscall.SIGKILL)
	if a := <-answers; a.failure != nil || a.result.Generation != 2 {
		t.Errorf("the answer: %+v", a)
	}
	st := f.until("the end of generation 1", phase(1, state.Gone))
	if st.Live().Number != 2 || st.Back == nil || st.Back.Generation != 1 || len(st.Queues) != 0 {
		t.Errorf("the state: %+v", st.Service)
	}
	if seen := f.answeredBy(3); seen["2"] != 3 {
		t.Errorf("answered by %v", seen)
	}
}

func TestRollbackOfACanary(t *testing.T) {
	t.Parallel()
	f, answers := withCanary(t, config(t), CanaryOptions{Share: 0.5})
	r, err := f.rollback()
	if err != nil || r.Generation != 1 || !r.Back {
		t.Errorf("%+v, %v", r, err)
	}
	refused(t, (<-answers).failure, CodeRolledBack, "generation 2 was given up: test")
	if seen := f.answeredBy(5); seen["1"] != 5 {
		t.Errorf("answered by %v", seen)
	}
	f.until("its end", phase(2, state.Gone))
}

// What was live before needs no trial.
func TestWayBackIsNoCanary(t *testing.T) {
	t.Parallel()
	f, answers := withCanary(t, config(t), CanaryOptions{Share: 0.5})
	f.Promote(t.Context())
	<-answers
	f.until("the end of generation 1", phase(1, state.Gone))
	if r, err := f.rollback(); err != nil || r.Generation != 3 || r.Of != 1 || r.Tried != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A newer one gives a canary up, and one that waits does not.
func TestReloadDuringACanary(t *testing.T) {
	t.Parallel()
	f, answers := withCanary(t, config(t), CanaryOptions{Share: 0.5})
	next := f.reloads(ReloadOptions{Reason: "test", Supersede: true, Canary: &CanaryOptions{Share: 1}})
	refused(t, (<-answers).failure, CodeNotReady, "was given up for a newer one")
	f.until("the next", phase(3, state.Canary))
	if seen := f.answeredBy(3); seen["3"] != 3 { // a share of its own
		t.Errorf("answered by %v", seen)
	}
	if _, err := f.Promote(t.Context()); err != nil {
		t.Error(err)
	}
	if a := <-next; a.failure != nil {
		t.Error(a.failure)
	}
}

func TestStopDuringACanary(t *testing.T) {
	t.Parallel()
	f, answers := withCanary(t, config(t), CanaryOptions{Share: 0.5, For: time.Hour})
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, (<-answers).failure, CodeFailed, "was given up: the service was stopped")
	st := f.until("both to go", func(s Status) bool { return phase(1, state.Gone)(s) && phase(2, state.Gone)(s) })
	for _, n := range []int{1, 2} {
		if g := st.Generation(n); g.Exit != "exit status 0" || g.Signalled.IsZero() {
			t.Errorf("generation %d: %+v", n, g)
		}
	}
}

// The candidate is not ready yet when somebody wants it to be a canary.
func TestCanaryOfACandidateThatStarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := start(t, config(t, "habits="+dir+"/habits"))
	f.until("generation 1", live(1))
	write(t, dir+"/habits", "until="+dir+"/go")
	answers := f.reloads(ReloadOptions{Reason: "test"})
	f.until("the candidate", phase(2, state.Starting))
	if r, err := f.Canary(t.Context(), 1); err != nil || r.Generation != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	write(t, dir+"/go", "")
	f.until("the canary", phase(2, state.Canary))
	if seen := f.answeredBy(3); seen["2"] != 3 {
		t.Errorf("answered by %v", seen)
	}
	f.Promote(t.Context())
	if a := <-answers; a.failure != nil {
		t.Error(a.failure)
	}
}

// The probation comes after the canary.
func TestCanaryThenProbation(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Probation = time.Hour
	f, answers := withCanary(t, cfg, CanaryOptions{Share: 0, For: 50 * time.Millisecond})
	st := f.until("the switch", live(2))
	if st.Generation(1).Phase != state.Probation {
		t.Errorf("generation 1 is %s", st.Generation(1).Phase)
	}
	f.rollback()
	refused(t, (<-answers).failure, CodeRolledBack, "was given up: test")
}

func TestNoShareOfASharedListener(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Shared = true
	f := start(t, cfg)
	f.until("generation 1", live(1))
	_, err := f.Canary(t.Context(), 0.5)
	refused(t, err, CodeFailed, "generations share one listener")
	_, err = f.Reload(t.Context(), ReloadOptions{Canary: &CanaryOptions{}})
	refused(t, err, CodeFailed, "generations share one listener")
	refused(t, f.Pause(t.Context()), CodeFailed, "generations share one listener")
	cfg.Canary = &CanaryOptions{}
	if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "can't have a canary") {
		t.Errorf("a canary with shared listeners: %v", err)
	}
}

// A connection that waits in the canary's queue when it dies is relayed.
func TestWhoWaitsForACanaryThatDies(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	r := &relay{t: t}
	cfg.Relay = r.serve
	cfg.Ready = ready.Options{Mode: ready.Delay, Delay: time.Millisecond} // no check of it waits there too
	f, answers := withCanary(t, cfg, CanaryOptions{Share: 1, For: time.Hour})
	f.generation() // it serves by now
	pid := f.until("the canary", phase(2, state.Canary)).Generation(2).PID
	f.halt(pid)
	body := make(chan string, 1)
	go func() { b, err := request("http://" + f.Addrs()[0].Addr + "/"); body <- fmt.Sprint(b, err) }()
	f.until("it to wait", func(s Status) bool { return s.MeasuredOf(*s.Generation(2)).Queue >= 1 })
	syscall.Kill(pid, syscall.SIGKILL)
	refused(t, (<-answers).failure, CodeRolledBack, "ended by itself during its canary")
	if got := <-body; got != "relayed<nil>" {
		t.Errorf("got %s", got)
	}
}
