package reload

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/state"
)

// Whatever a candidate does, live serves on without a failed request, the caller
// learns what it was, nothing of the candidate is left, and the next reload works.
func TestBadCandidates(t *testing.T) {
	for _, c := range []struct {
		name, habits string
		mode         ready.Mode
		want         string
		code, exit   int
		exitText     string
	}{
		{"exits with 0", "say=sorry exit=0", ready.Auto, "ended before it was ready: exit status 0", CodeNotReady, 0, "exit status 0"},
		{"exits with 1", "say=sorry exit=1", ready.Auto, "ended before it was ready: exit status 1", CodeNotReady, 1, "exit status 1"},
		{"exits with a child", "say=sorry child exit=1", ready.Auto, "ended before it was ready: exit status 1", CodeNotReady, 1, "exit status 1"},
		{"hangs", "say=sorry hang", ready.Auto, "was not ready within 8s: it has not accepted a connection on 127.0.0.1:", CodeNotReady, -1, ""},
		{"hangs, and says ready otherwise", "say=sorry hang", ready.Notify, "was not ready within 8s: it has not said READY=1", CodeNotReady, -1, ""},
		{"hangs with a child", "say=sorry child hang", ready.Accept, "was not ready within 8s", CodeNotReady, -1, ""},
		{"stops itself", "say=sorry sigstop", ready.Auto, "was not ready within 8s", CodeNotReady, -1, ""},
		{"closes fd 3", "say=sorry notify close3", ready.Auto, "is not ready: it has closed its listener at 127.0.0.1:", CodeNotReady, -1, ""},
		{"shuts its listener down", "say=sorry shutdown3 hang", ready.Auto, "shut its listener at 127.0.0.1:", CodeNotReady, -1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "habits")
			own := []string{"habits=" + file}
			if c.mode == ready.Notify || strings.Contains(c.habits, "notify") { // from then on all must
				own = append(own, "notify")
			}
			cfg := config(t, own...)
			cfg.ReadyTimeout, cfg.Ready.Mode = 8*time.Second, c.mode
			f := start(t, cfg)
			f.until("generation 1", live(1))
			stop := f.load()
			write(t, file, c.habits)
			_, err := f.reload()
			fault := failure(t, err)
			if fault.Code != c.code || fault.Generation != 2 || !strings.Contains(fault.Reason, c.want) || fault.Exit != c.exitText || fault.ExitCode != c.exit {
				t.Errorf("reload: %#v", fault)
			}
			if !slices.Contains(fault.Lines, "sorry") {
				t.Errorf("its last lines are %q", fault.Lines)
			}
			f.until("the candidate to go", goneOf(2))
			if got := f.generation(); got != "1" {
				t.Errorf("answered by %q", got)
			}
			os.Remove(file)
			f.mustReload()
			if st := f.until("generation 1 to go", phase(1, state.Gone)); st.Relayed != 0 {
				t.Errorf("%d clients were relayed", st.Relayed)
			}
			if seen := stop(); seen["1"] == 0 || seen["2"] > 0 {
				t.Errorf("clients were answered by %v", seen)
			}
		})
	}
}

// goneOf: the candidate failed, and no process of its group is left.
func goneOf(number int) func(Status) bool {
	return func(s Status) bool {
		g := s.Generation(number)
		if g == nil || g.Phase != state.Failed || g.Ended.IsZero() {
			return false
		}
		if g.PID == 0 {
			return true // it was given up before its process was known, and that waited for
		}
		members, err := conns.Group(g.PID)
		return err == nil && len(members) == 0
	}
}

// Where a generation is its process group, one in a session of its own is not the
// generation's any more, but it has the listener. Once the generation is gone it can't
// accept from it.
func TestStrayProcessCannotAcceptAnyMore(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "stray")
	cfg := config(t, "stray="+file)
	cfg.KillMode = KillGroup
	f := start(t, cfg)
	f.until("generation 1", live(1))
	strayOf(t, file, 1)
	t.Cleanup(func() { killStrays(file) })
	stop := f.load()
	f.mustReload()
	f.until("the stray's end of serving", func(Status) bool {
		b, _ := os.ReadFile(file)
		return strings.Contains(string(b), "serving ended")
	})
	if seen := stop(); len(seen) != 2 {
		t.Errorf("clients were answered by %v", seen)
	}
	f.until("generation 1 to go", phase(1, state.Gone))
}

// strayOf is the pid of the n-th stray that was noted in a file.
func strayOf(t *testing.T, file string, n int) int {
	t.Helper()
	b, err := os.ReadFile(file)
	lines := strings.Fields(string(b))
	if err != nil || len(lines) < n {
		t.Fatalf("%q, %v, and not %d strays", b, err, n)
	}
	pid, err := strconv.Atoi(lines[n-1])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// killStrays ends those that a test's daemons noted and that still run.
func killStrays(file string) {
	b, _ := os.ReadFile(file)
	for _, word := range strings.Fields(string(b)) {
		pid := 0
		cmdline, _ := os.ReadFile("/proc/" + word + "/cmdline")
		if _, err := fmt.Sscan(word, &pid); err == nil && strings.Contains(string(cmdline), "astray="+file) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// One that shuts its listener down while it drains hurts nobody.
func TestListenerShutDownWhileDraining(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "count")
	cfg := config(t, "shutdown", "count="+file)
	f := start(t, cfg)
	f.until("generation 1", live(1))
	stop := f.load()
	for n := 1; n <= 3; n++ {
		f.mustReload()
		f.until("the old generation to go", phase(n, state.Gone))
	}
	stop()
	if strings.Contains(f.log.String(), "listener.shutdown") {
		t.Error("a listener that was drained was listened on again")
	}
}

// Live shuts its listener down while the one before still drains: clients get in.
func TestLiveListenerIsMendedWhileAnotherDrains(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	f.stream()
	f.mustReload()
	f.until("the signal", func(s Status) bool { return !s.Generation(1).Signalled.IsZero() })
	f.get("/shutdown")
	f.until("the listener to be mended", f.happened("listener.shutdown"))
	c, err := net.DialTimeout("tcp", f.Addrs()[0].Addr, 5*time.Second)
	if err != nil {
		t.Fatalf("after mending: %v", err)
	}
	c.Close()
	f.mustReload()
	if got := f.generation(); got != "3" {
		t.Errorf("answered by %q", got)
	}
}

// A reload every 100 ms of a daemon that takes a second to start converges: one
// runs, one waits.
func TestReloadsFasterThanTheStart(t *testing.T) {
	t.Parallel()
	f := start(t, config(t, "start=1s"))
	f.until("generation 1", live(1))
	stop := f.load()
	var requests sync.WaitGroup
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 20 {
		<-tick.C
		requests.Go(func() { f.mustReloadSoon() })
	}
	requests.Wait()
	st := f.until("the last to be live", func(s Status) bool { return s.Live() != nil && s.Live().Number == s.Next-1 })
	// Two seconds of requests: at most three starts begin in them, and one waits.
	if st.Next-1 > 5 {
		t.Errorf("20 requests in 2 s made %d generations", st.Next-2)
	}
	if got := f.generation(); got != fmt.Sprint(st.Next-1) {
		t.Errorf("answered by %q of %d", got, st.Next-1)
	}
	stop()
}

// mustReloadSoon is for goroutines.
func (f *fixture) mustReloadSoon() {
	if _, err := f.reload(); err != nil {
		f.t.Error(err)
	}
}

// Who asks while a reload runs gets the answer of the one that waits.
func TestWaitingReloadIsShared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := start(t, config(t, "habits="+dir+"/habits"))
	f.until("generation 1", live(1))
	write(t, dir+"/habits", "until="+dir+"/go")
	first := make(chan Result, 1)
	go func() { r, _ := f.reload(); first <- r }()
	f.until("generation 2 to start", phase(2, state.Starting))
	rest := make(chan Result, 10)
	for range cap(rest) {
		go func() { r, _ := f.reload(); rest <- r }()
	}
	write(t, dir+"/go", "")
	if r := <-first; r.Generation != 2 {
		t.Errorf("the first reload: %+v", r)
	}
	last := 0
	for range cap(rest) {
		r := <-rest
		if r.Generation < 3 {
			t.Errorf("a later one got %+v", r)
		}
		last = max(last, r.Generation)
	}
	if last > 12 {
		t.Errorf("generation %d", last)
	}
}

func TestReloadIfGeneration(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	_, err := f.Reload(t.Context(), ReloadOptions{IfGeneration: 2})
	if got := failure(t, err); got.Code != CodeRefused || got.Generation != 0 {
		t.Errorf("%#v", got)
	}
	if r, err := f.Reload(t.Context(), ReloadOptions{IfGeneration: 1, Reason: "asked"}); err != nil || r.Generation != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if st := f.until("generation 2", live(2)); st.Live().Reason != "asked" {
		t.Errorf("its reason is %q", st.Live().Reason)
	}
}

// READY=1 alone is not believed: gunicorn says it before a worker has loaded the
// application, and what a broken one then does must not cost the old one its place.
func TestReadyAloneIsNotBelieved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := start(t, config(t, "habits="+dir+"/habits", "notify"))
	f.until("generation 1", live(1))
	write(t, dir+"/habits", "early\nexit=3")
	_, err := f.reload()
	var failure *Failure
	if !errors.As(err, &failure) || failure.Code != CodeNotReady || failure.Exit != "exit status 3" {
		t.Errorf("reload: %v", err)
	}
	if got := f.generation(); got != "1" {
		t.Errorf("answered by %q", got)
	}
}

// In a crash loop the short lives in between do not count: clients are refused once
// nobody has stayed live for the hold timeout.
func TestHoldTimeoutInACrashLoop(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.HoldTimeout = 250 * time.Millisecond
	f := start(t, cfg)
	f.until("generation 1", live(1))
	for n := 1; !f.until("the next life, or refusal", func(s Status) bool { return s.Refusing || s.Live() != nil }).Refusing; n++ {
		if n > 20 {
			t.Fatal("20 crashes, and nobody was refused")
		}
		f.get("/die")
	}
}
