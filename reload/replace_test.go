package reload

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// replacing is a service of which only one generation can run, as it locks its data.
func replacing(t *testing.T, habits ...string) (*fixture, string) {
	t.Helper()
	dir := t.TempDir()
	cfg := config(t, append([]string{"habits=" + dir + "/habits", "lock=" + dir + "/lock"}, habits...)...)
	cfg.Strategy = StrategyReplace
	f := start(t, cfg)
	f.until("generation 1", live(1))
	return f, dir
}

// Nobody is refused or lost, and no two run at once: the second would not start.
func TestReplace(t *testing.T) {
	t.Parallel()
	f, _ := replacing(t)
	stop := f.load()
	for n := 2; n <= 4; n++ {
		if r := f.mustReload(); r.Generation != n {
			t.Errorf("%+v", r)
		}
	}
	st := f.until("generation 3 to go", phase(3, state.Gone))
	if seen := stop(); len(seen) != 4 {
		t.Errorf("answered by %v", seen)
	}
	if st.Relayed != 0 || st.Back == nil || st.Back.Generation != 3 || st.Crashes != 0 {
		t.Errorf("the state: %+v", st.Service)
	}
}

// What the old one has accepted it finishes; who comes meanwhile waits for the new one.
func TestReplaceWaitsForTheOldOne(t *testing.T) {
	t.Parallel()
	f, dir := replacing(t)
	last := make(chan string, 1)
	go func() { last <- f.get("/wait" + dir + "/go") }()
	f.untilCounted("a request", func(s Status) bool { return s.MeasuredOf(*s.Generation(1)).Connections == 1 })
	answers := f.reloads(ReloadOptions{Reason: "test"})
	st := f.until("the end of the old one to begin", phase(1, state.Draining))
	if g := st.Generation(2); g.Phase != state.Starting || g.PID != 0 || st.Live() != nil {
		t.Errorf("the next one: %+v", g)
	}
	first := make(chan string, 1)
	go func() { first <- f.generation() }()
	f.until("a client to wait", func(s Status) bool { return s.MeasuredOf(*s.Generation(2)).Queue == 1 })
	write(t, dir+"/go", "")
	if got := <-last; !strings.HasPrefix(got, "1 ") {
		t.Errorf("the last of the old one: %q", got)
	}
	if a := <-answers; a.failure != nil {
		t.Error(a.failure)
	}
	if got := <-first; got != "2" {
		t.Errorf("answered by %q", got)
	}
}

// A command that can't be run is found out before anything is stopped.
func TestReplaceByWhatCannotRun(t *testing.T) {
	t.Parallel()
	f, dir := replacing(t)
	stop := f.load()
	_, err := f.change(Change{Command: []string{dir + "/nothing"}})
	refused(t, err, CodeRefused, "no such file")
	st := f.until("it to be gone", phase(2, state.Failed))
	if st.Live() == nil || st.Live().Number != 1 || !st.Live().Signalled.IsZero() {
		t.Errorf("the state: %+v", st.Service)
	}
	if seen := stop(); seen["1"] == 0 || len(seen) != 1 {
		t.Errorf("answered by %v", seen)
	}
}

// The next one fails after the old one has ended for it: what the old one was is
// started again, of its own program, which has been overwritten; clients only wait.
func TestReplaceByWhatFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "daemon")
	copyFile(t, os.Args[0], file)
	cfg := config(t)
	cfg.Command = []string{file, "daemon", "lock=" + dir + "/lock"}
	cfg.Strategy, cfg.Restart = StrategyReplace, RestartNo
	f := start(t, cfg)
	f.until("generation 1", live(1))
	stop := f.load()
	bad := filepath.Join(dir, "bad")
	write(t, bad, "#!/bin/sh\necho sorry\nexit 3\n")
	os.Chmod(bad, 0o700)
	if err := os.Rename(bad, file); err != nil {
		t.Fatal(err)
	}
	_, err := f.reload()
	fault := failure(t, err)
	if fault.Code != CodeNotReady || fault.ExitCode != 3 || !strings.Contains(fault.Reason, "what generation 1 was is started again") || strings.Join(fault.Lines, "") != "sorry" {
		t.Errorf("%#v", fault)
	}
	st := f.until("the way back", live(3))
	if g := st.Live(); g.Program.Origin != 1 || !g.Pinned || st.Pinned != 1 {
		t.Errorf("it runs %+v", g)
	}
	if seen := stop(); seen["1"] == 0 || seen["2"] > 0 || f.generation() != "3" {
		t.Errorf("answered by %v", seen)
	}
	syscall.Kill(st.Live().PID, syscall.SIGTERM)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
}

// A crash leaves processes that have the data still: the replacement waits for them.
func TestReplaceAfterACrash(t *testing.T) {
	t.Parallel()
	f, _ := replacing(t, "child")
	f.cfg.StopTimeout = 300 * time.Millisecond // the child is deaf
	pid := f.until("live", live(1)).Live().PID
	waiting := make(chan string, 1)
	syscall.Kill(pid, syscall.SIGKILL)
	f.until("the crash", f.happened("generation.crashed"))
	go func() { waiting <- f.generation() }()
	f.until("its replacement", live(2))
	if got := <-waiting; got != "2" {
		t.Errorf("answered by %q", got)
	}
	for _, e := range f.mustEvents() {
		if e.Kind == "generation.failed" {
			t.Errorf("it was started too early: %s", e.Text)
		}
	}
}

// Given up while it waits, it never runs, and the service is stopped.
func TestStopDuringAReplacement(t *testing.T) {
	t.Parallel()
	f, dir := replacing(t)
	go f.get("/wait" + dir + "/go")
	f.untilCounted("a request", func(s Status) bool { return s.MeasuredOf(*s.Generation(1)).Connections == 1 })
	answers := f.reloads(ReloadOptions{Reason: "test"})
	f.until("the end of the old one to begin", phase(1, state.Draining))
	stopped := make(chan error, 1)
	go func() { stopped <- f.Stop(context.WithoutCancel(t.Context())) }()
	refused(t, (<-answers).failure, CodeFailed, "was given up: the service was stopped")
	write(t, dir+"/go", "")
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if st := f.until("it to be gone", phase(1, state.Gone)); st.Generation(2).PID != 0 || st.Generation(1).Exit != "exit status 0" {
		t.Errorf("%+v", st.Service)
	}
	if _, err := f.Start(t.Context()); err != nil {
		t.Error(err)
	}
}

// A newer one takes the place of one that waits.
func TestSupersedeDuringAReplacement(t *testing.T) {
	t.Parallel()
	f, dir := replacing(t)
	go f.get("/wait" + dir + "/go")
	f.untilCounted("a request", func(s Status) bool { return s.MeasuredOf(*s.Generation(1)).Connections == 1 })
	answers := f.reloads(ReloadOptions{Reason: "test"})
	f.until("the end of the old one to begin", phase(1, state.Draining))
	next := f.reloads(ReloadOptions{Reason: "test", Supersede: true})
	refused(t, (<-answers).failure, CodeNotReady, "was given up for a newer one")
	write(t, dir+"/go", "")
	if a := <-next; a.failure != nil || a.result.Generation != 3 {
		t.Errorf("%+v", a)
	}
	if got := f.generation(); got != "3" {
		t.Errorf("answered by %q", got)
	}
}

func TestRollbackOfAReplacement(t *testing.T) {
	t.Parallel()
	f, _ := replacing(t)
	f.mustReload()
	r, err := f.rollback()
	if err != nil || r.Generation != 3 || r.Of != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if got := f.generation(); got != "3" {
		t.Errorf("answered by %q", got)
	}
}

func TestReplaceNeedsOneAtATime(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Strategy = StrategyReplace
	f := start(t, cfg)
	f.until("generation 1", live(1))
	_, err := f.Reload(t.Context(), ReloadOptions{Canary: &CanaryOptions{Share: 0.1}})
	refused(t, err, CodeFailed, "only one generation runs at a time")
	for _, c := range []Config{{Probation: time.Second}, {Canary: &CanaryOptions{}}} {
		c.Command, c.Strategy = cfg.Command, StrategyReplace
		if _, err := New(t.Context(), c); err == nil || !strings.Contains(err.Error(), "two generations at once") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
