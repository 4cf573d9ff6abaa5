package reload

import (
	"errors"
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

func TestFailedCandidateLeavesTheOld(t *testing.T) {
	t.Parallel()
	flag := filepath.Join(t.TempDir(), "broken")
	for _, c := range []struct {
		name, habit, want, line string
		code                    int
	}{
		{"exits", "exitif=" + flag, "ended before it was ready: exit status 3", "", CodeNotReady},
	} {
		t.Run(c.name, func(t *testing.T) {
			os.Remove(flag)
			f := start(t, config(t, "say=no such table: users", c.habit))
			f.until("generation 1", live(1))
			os.WriteFile(flag, nil, 0o600)
			_, err := f.reload()
			var failure *Failure
			if !errors.As(err, &failure) || failure.Code != c.code || !strings.Contains(failure.Reason, c.want) {
				t.Fatalf("reload: %v", err)
			}
			if !slices.Contains(failure.Lines, "no such table: users") {
				t.Errorf("its last lines are %q", failure.Lines)
			}
			if got := f.generation(); got != "1" {
				t.Errorf("answered by %q", got)
			}
			f.until("the candidate to go", func(s Status) bool { return phase(2, state.Failed)(s) && len(s.Measured) == 2 })
			f.until("its listener to be closed", func(Status) bool {
				var open []uint64
				err := f.ask(t.Context(), func() { open = f.knownInodes() })
				return err == nil && len(open) == 1
			})
			var ends []string
			for _, e := range f.mustEvents() {
				if e.Generation == 2 && (e.Kind == "generation.failed" || e.Kind == "generation.gone") {
					ends = append(ends, e.Kind)
				}
			}
			if !slices.Equal(ends, []string{"generation.failed", "generation.gone"}) {
				t.Errorf("its end was told as %q", ends)
			}
		})
	}
}

func TestFirstGenerationFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		habits []string
		code   int
	}{
		{[]string{"exit=3"}, 3},
		{[]string{"exit=0"}, CodeNotReady},
	} {
		f := start(t, config(t, c.habits...))
		<-f.done
		if f.code != c.code || f.err == nil {
			t.Errorf("%q: ended with %d, %v", c.habits, f.code, f.err)
		}
	}
	cfg := config(t)
	cfg.Command = []string{"/no/such/daemon"}
	f := start(t, cfg)
	<-f.done
	if f.code != 127 {
		t.Errorf("not found: ended with %d, %v", f.code, f.err)
	}
}

func TestCandidateThatHangs(t *testing.T) {
	t.Parallel()
	for _, mode := range []ready.Mode{ready.Auto, ready.Notify, ready.Accept} {
		t.Run(string(mode), func(t *testing.T) {
			cfg := config(t, "hang")
			cfg.ReadyTimeout, cfg.Ready.Mode = 300*time.Millisecond, mode
			f := start(t, cfg)
			<-f.done
			if f.code != CodeNotReady || !strings.Contains(f.err.Error(), "was not ready within 300ms") {
				t.Errorf("ended with %d, %v", f.code, f.err)
			}
		})
	}
}

func TestClosedListenerIsNotReady(t *testing.T) {
	t.Parallel()
	f := start(t, config(t, "notify", "close3"))
	<-f.done
	if f.err == nil || !strings.Contains(f.err.Error(), "closed its listener") {
		t.Errorf("ended with %d, %v", f.code, f.err)
	}
}

// One that is given up before its start is known, whether it runs by then or not,
// ends and is followed to its end.
func TestGivenUpBeforeItsStartIsKnown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := start(t, config(t, "habits="+dir+"/habits"))
	f.until("generation 1", live(1))
	for _, runs := range []bool{false, true} {
		file := fmt.Sprintf("%s/env-%t", dir, runs)
		write(t, dir+"/habits", "env="+file+" hang")
		reply := make(chan answer, 1)
		f.ask(t.Context(), func() {
			f.request(ReloadOptions{}, reply)
			if runs {
				waitFor(file)
			}
			f.giveUpCandidate("so it is")
		})
		if got := failure(t, (<-reply).failure); got.Reason != "was given up: so it is" {
			t.Errorf("%#v", got)
		}
		f.until("it to go", func(Status) bool {
			only := false
			f.ask(t.Context(), func() { only = len(f.runs) == 1 })
			return only
		})
	}
	if got := f.generation(); got != "1" {
		t.Errorf("answered by %q", got)
	}
}

// A reload that waits for the first start is not lost with that.
func TestReloadAfterAFirstStartThatFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/habits", "env="+dir+"/env until="+dir+"/go exit=3")
	f := start(t, config(t, "habits="+dir+"/habits"))
	f.until("generation 1 to have read its habits", func(Status) bool { _, err := os.Stat(dir + "/env"); return err == nil })
	reply := make(chan answer, 1)
	f.ask(t.Context(), func() { f.request(ReloadOptions{}, reply) })
	os.Remove(dir + "/habits")
	write(t, dir+"/go", "")
	if a := <-reply; a.failure != nil || a.result.Generation != 2 {
		t.Errorf("the reload: %+v", a)
	}
	if st := f.until("generation 2", live(2)); st.Goal != state.Run || st.Crashes != 0 {
		t.Errorf("after it: %+v", st.Service)
	}
}

// It may have ended although it is ready: its last word comes before the word of its
// end.
func TestEndedCandidateIsNotReady(t *testing.T) {
	t.Parallel()
	f, underWay := reloading(t)
	f.ask(t.Context(), func() {
		g := f.runs[2]
		g.proc.Signal(syscall.SIGKILL)
		<-g.proc.Exited()
		f.observed(g, nil)
	})
	if got := failure(t, <-underWay); got.Reason != "ended before it was ready: killed by SIGKILL" {
		t.Errorf("the reload: %#v", got)
	}
	if got := f.generation(); got != "1" {
		t.Errorf("answered by %q", got)
	}
}

// One endpoint can't be opened: what was opened of the others is closed again.
func TestCandidateThatCannotBePrepared(t *testing.T) {
	t.Parallel()
	cfg := config(t, "notify")
	cfg.Specs, cfg.Ready.Mode = specs(t, "a=127.0.0.1:0", "b=127.0.0.1:0"), ready.Notify // it accepts from the first only
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.ask(t.Context(), func() {
		if err := f.eps[1].Refuse(); err != nil { // a listener can't be opened beside
			t.Error(err)
		}
	})
	_, err := f.reload()
	if got := failure(t, err); got.Code != CodeFailed || !strings.Contains(got.Reason, "could not be prepared") {
		t.Errorf("the reload: %#v", got)
	}
	f.ask(t.Context(), func() {
		if open := f.eps[0].Inodes(); len(open) != 1 {
			t.Errorf("%d listeners are open", len(open))
		}
		if err := f.eps[1].Resume(); err != nil {
			t.Error(err)
		}
	})
	f.mustReload()
}

// A candidate that is given up before its process has become the daemon leaves none,
// and its record says so.
func TestGivenUpWhileItStarts(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "go on")
	write(t, file, "")
	cfg := config(t)
	cfg.Shim = []string{"/proc/self/exe", "__heldshim", file}
	f := start(t, cfg)
	f.until("generation 1", live(1))
	os.Remove(file)
	told := make(chan error, 1)
	go func() { _, err := f.reload(); told <- err }()
	f.until("the candidate", phase(2, state.Starting))
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if fault := failure(t, <-told); fault.Code != CodeFailed || fault.Generation != 2 {
		t.Errorf("reload: %#v", fault)
	}
	g := f.until("the candidate to go", goneOf(2)).Generation(2)
	if g.Exit != "given up while it started" || g.PID != 0 {
		t.Errorf("its record: %+v", g)
	}
}
