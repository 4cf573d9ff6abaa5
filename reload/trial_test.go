package reload

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// onProbation is a service with generation 2 live and generation 1 kept, and the
// answer to the reload that is still to come.
func onProbation(t *testing.T, d time.Duration, habits ...string) (*fixture, <-chan answer) {
	t.Helper()
	cfg := config(t, habits...)
	cfg.Probation = d
	f := start(t, cfg)
	f.until("generation 1", live(1))
	answers := make(chan answer, 1)
	go func() {
		r, err := f.reload()
		answers <- answer{r, err}
	}()
	f.until("generation 2", live(2))
	return f, answers
}

func (f *fixture) signals(number int) string {
	f.t.Helper()
	st, err := f.Status(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	g := st.Generation(number)
	return fmt.Sprintf("%s, told to stop: %t", g.Phase, !g.Signalled.IsZero())
}

func TestProbationPasses(t *testing.T) {
	t.Parallel()
	f, answers := onProbation(t, 300*time.Millisecond)
	if got := f.signals(1); got != "probation, told to stop: false" {
		t.Errorf("generation 1: %s", got)
	}
	a := <-answers
	if a.failure != nil || !a.result.Stood || a.result.Generation != 2 || !slices.Equal(a.result.Draining, []int{1}) {
		t.Errorf("the answer: %+v", a)
	}
	if text := a.result.String(); !strings.Contains(text, ", stood its probation of 300ms · generation 1 drains") {
		t.Errorf("it says %q", text)
	}
	f.until("the end of generation 1", phase(1, state.Gone))
	if got := f.generation(); got != "2" {
		t.Errorf("answered by %q", got)
	}
}

// The new one dies: the one before it serves again at once, and is itself not
// started anew.
func TestDeathInProbationGoesBack(t *testing.T) {
	t.Parallel()
	f, answers := onProbation(t, time.Minute)
	syscall.Kill(f.until("generation 2", live(2)).Live().PID, syscall.SIGKILL)
	a := <-answers
	var failure *Failure
	if !errors.As(a.failure, &failure) || failure.Code != CodeRolledBack || failure.Exit != "killed by SIGKILL" || failure.Generation != 2 {
		t.Errorf("the answer: %+v", a)
	}
	f.until("generation 1 to be live", live(1))
	if got := f.generation(); got != "1" {
		t.Errorf("answered by %q", got)
	}
	if st := f.until("the end of generation 2", phase(2, state.Gone)); st.Next != 3 || st.Previous != 2 {
		t.Errorf("next is %d, previous %d", st.Next, st.Previous)
	}
}

// The one that is kept dies: the new one stays, without a way back.
func TestKeptOneDies(t *testing.T) {
	t.Parallel()
	f, answers := onProbation(t, time.Minute)
	st := f.until("generation 1 to be kept", phase(1, state.Probation))
	syscall.Kill(st.Generation(1).PID, syscall.SIGKILL)
	if a := <-answers; a.failure != nil || a.result.Stood {
		t.Errorf("the answer: %+v", a)
	}
	f.until("the word of it", f.happened("probation.lost"))
	f.until("its end", phase(1, state.Gone))
	syscall.Kill(f.until("generation 2", live(2)).Live().PID, syscall.SIGKILL)
	f.until("a replacement", live(3))
}

// A reload in the time does not wait for its end; the generation that was on trial
// is the one that is kept then.
func TestReloadDuringProbation(t *testing.T) {
	t.Parallel()
	f, answers := onProbation(t, time.Minute)
	next := make(chan answer, 1)
	go func() {
		r, err := f.reload()
		next <- answer{r, err}
	}()
	st := f.until("generation 3", live(3))
	if a := <-answers; a.failure != nil || a.result.Generation != 2 {
		t.Errorf("the first answer: %+v", a)
	}
	if g := st.Generation(2); g.Phase != state.Probation {
		t.Errorf("generation 2 is %s", g.Phase)
	}
	f.until("the end of generation 1", phase(1, state.Gone))
	syscall.Kill(st.Live().PID, syscall.SIGKILL)
	var failure *Failure
	if a := <-next; !errors.As(a.failure, &failure) || failure.Code != CodeRolledBack {
		t.Errorf("the second answer: %+v", a)
	}
	f.until("generation 2 again", live(2))
}

// A death in probation while the next candidate starts leaves that one alone.
func TestDeathInProbationDuringAReload(t *testing.T) {
	t.Parallel()
	gate := t.TempDir() + "/go"
	f, answers := onProbation(t, time.Minute)
	next := make(chan error, 1)
	go func() {
		_, err := f.change(Change{Command: append(f.command(), "until="+gate)})
		next <- err
	}()
	f.until("the candidate", func(s Status) bool { g := s.Generation(3); return g != nil && g.PID != 0 })
	syscall.Kill(f.until("generation 2", live(2)).Live().PID, syscall.SIGKILL)
	<-answers
	f.until("generation 1 again", live(1))
	write(t, gate, "")
	f.until("generation 3", live(3))
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-next; err != nil {
		t.Error(err)
	}
}

func TestStopDuringProbation(t *testing.T) {
	t.Parallel()
	f, answers := onProbation(t, time.Minute)
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := <-answers; a.failure != nil {
		t.Errorf("the answer: %+v", a)
	}
	st := f.until("both to be gone", func(s Status) bool { return phase(1, state.Gone)(s) && phase(2, state.Gone)(s) })
	for _, n := range []int{1, 2} {
		if g := st.Generation(n); g.Signalled.IsZero() || g.Exit != "exit status 0" {
			t.Errorf("generation %d: %+v", n, g)
		}
	}
}
