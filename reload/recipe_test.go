package reload

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gapless-dev/gapless/reload/state"
)

func (f *fixture) change(c Change) (Result, error) {
	f.t.Helper()
	return f.Reload(f.t.Context(), ReloadOptions{Reason: "test", Change: c})
}

// What a reload changes stays changed, through further reloads and crashes.
func TestChangesStay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/first", "FROM=first\nA=file\n")
	write(t, dir+"/second", "FROM=second\n")
	cfg := config(t)
	cfg.EnvFile = dir + "/first"
	f := start(t, cfg)
	f.until("generation 1", live(1))
	for _, c := range []Change{
		{Set: []string{"A=1", "B=1"}},
		{Set: []string{"A=2", "C=3=4"}, EnvFile: dir + "/second"},
		{Command: append(slices.Clone(cfg.Command), "notify")},
		{},
	} {
		if _, err := f.change(c); err != nil {
			t.Fatal(err)
		}
	}
	f.get("/die")
	st := f.until("generation 6", live(6))
	for name, want := range map[string]string{"A": "2", "B": "1", "C": "3=4", "FROM": "second"} {
		if got := f.get("/env/" + name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	want := state.Recipe{Command: append(slices.Clone(cfg.Command), "notify"), Dir: st.Recipe.Dir, EnvFile: dir + "/second", Set: []string{"B=1", "A=2", "C=3=4"}}
	if diff := cmp.Diff(want, st.Live().Recipe); diff != "" {
		t.Errorf("live's recipe (-want +got):\n%s", diff)
	}
}

// A change that makes no live generation is forgotten.
func TestChangeOfAFailedReloadIsForgotten(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	f := start(t, cfg)
	f.until("generation 1", live(1))
	var failure *Failure
	_, err := f.change(Change{Command: append(slices.Clone(cfg.Command), "exit=3"), Set: []string{"A=1"}})
	if !errors.As(err, &failure) || failure.Code != CodeNotReady {
		t.Errorf("a command that ends: %v", err)
	}
	_, err = f.change(Change{Command: []string{filepath.Join(t.TempDir(), "absent")}})
	if !errors.As(err, &failure) || failure.Code != CodeRefused {
		t.Errorf("a command that is not there: %v", err)
	}
	f.mustReload()
	if got := f.get("/env/A"); got != "" || f.generation() != "4" {
		t.Errorf("A is %q, generation %s", got, f.generation())
	}
}

func TestBadChangesAreRefused(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	for want, c := range map[string]Change{
		`can't set "A": want NAME=VALUE`:             {Set: []string{"A"}},
		`can't set "=1": want NAME=VALUE`:            {Set: []string{"=1"}},
		"can't run a command without a name":         {Command: []string{""}},
		"environment file env: its path must be abs": {EnvFile: "env"},
	} {
		if _, err := f.change(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if st := f.until("no candidate", live(1)); st.Next != 2 {
		t.Errorf("%d is the next generation", st.Next)
	}
}

// All that is asked for while a reload runs goes into the one that follows, but for
// what is refused when its turn comes.
func TestChangesOfThoseWhoWaitAreMerged(t *testing.T) {
	t.Parallel()
	gate := filepath.Join(t.TempDir(), "go")
	f := start(t, config(t))
	f.until("generation 1", live(1))
	answers := make(chan error, 4)
	ask := func(o ReloadOptions) {
		reply := make(chan answer, 1)
		if err := f.ask(t.Context(), func() { f.request(o, reply) }); err != nil {
			t.Error(err)
		}
		go func() { answers <- (<-reply).failure }()
	}
	ask(ReloadOptions{Change: Change{Command: append(f.command(), "until="+gate)}})
	ask(ReloadOptions{Change: Change{Set: []string{"A=1", "B=1"}}})
	ask(ReloadOptions{Change: Change{Set: []string{"A=9", "D=9"}}, IfGeneration: 1}) // live until then only
	ask(ReloadOptions{Change: Change{Set: []string{"B=2"}, Command: f.command()}})
	write(t, gate, "")
	refused := 0
	for range 4 {
		if err := <-answers; err != nil {
			refused++
		}
	}
	if refused != 1 || f.generation() != "3" {
		t.Errorf("%d were refused, generation %s", refused, f.generation())
	}
	for name, want := range map[string]string{"A": "1", "B": "2", "D": ""} {
		if got := f.get("/env/" + name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func (f *fixture) command() []string { return slices.Clone(f.cfg.Command) }

// A candidate that somebody calls obsolete is given up, and who asked for it is told.
func TestSupersede(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	obsolete := make(chan error, 1)
	go func() {
		_, err := f.change(Change{Command: append(f.command(), "hang"), Set: []string{"A=1"}})
		obsolete <- err
	}()
	f.until("the candidate", func(s Status) bool { g := s.Generation(2); return g != nil && g.PID != 0 })
	r, err := f.Reload(t.Context(), ReloadOptions{Reason: "newer", Supersede: true, Change: Change{Set: []string{"B=1"}}})
	if err != nil || r.Generation != 3 {
		t.Errorf("the newer one: %+v, %v", r, err)
	}
	var failure *Failure
	if err := <-obsolete; !errors.As(err, &failure) || failure.Code != CodeNotReady || !strings.Contains(failure.Reason, "given up for a newer one") {
		t.Errorf("the obsolete one: %v", err)
	}
	if a, b := f.get("/env/A"), f.get("/env/B"); a != "" || b != "1" {
		t.Errorf("A is %q, B is %q", a, b)
	}
	f.until("its end", func(s Status) bool { return s.Generation(2).Exit != "" })
}

// A first generation can be superseded too: the service goes on.
func TestSupersedeTheFirst(t *testing.T) {
	t.Parallel()
	f := start(t, config(t, "hang"))
	f.until("the candidate", func(s Status) bool { g := s.Generation(1); return g != nil && g.PID != 0 })
	r, err := f.Reload(t.Context(), ReloadOptions{Supersede: true, Change: Change{Command: f.command()[:2]}})
	if err != nil || r.Generation != 2 || f.generation() != "2" {
		t.Errorf("%+v, %v", r, err)
	}
}

// However many trigger a reload while one runs, one more follows; a refusal is told.
func TestTriggersBecomeOne(t *testing.T) {
	t.Parallel()
	f := start(t, config(t, "start=200ms"))
	f.until("generation 1", live(1))
	for range 50 {
		f.Trigger(ReloadOptions{Reason: "SIGHUP"})
	}
	f.until("the last", live(3))
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Trigger(ReloadOptions{Reason: "SIGHUP"})
	f.until("the refusal", f.happened("reload.refused"))
	if st := f.until("", func(Status) bool { return true }); st.Next != 4 {
		t.Errorf("50 triggers made %d generations", st.Next-2)
	}
}
