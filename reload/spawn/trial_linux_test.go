package spawn

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A daemon that ends without a bind, or that never binds, is no trial; nothing of it is
// left (TestMain).
func TestTrialNeedsBinds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if got, err := TryBind(ctx, options(t, "true")); err == nil {
		t.Errorf("it ended, and that was %+v", got)
	}
	if got, err := TryBind(ctx, options(t, "/proc/self/exe", "__bound")); err == nil || got.Memory != nil || got.Replace != nil {
		t.Errorf("its binds were served and it was not content: %+v, %v", got, err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	o := options(t, "sh", "-c", "echo running; exec sleep 600")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	o.Stdout = w
	go func() { // it is waited for by TryBind's return
		r.Read(make([]byte, 1))
		cancel()
	}()
	if got, err := TryBind(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("it never binds, and that was %+v, %v", got, err)
	}
}

func TestTryCgroup(t *testing.T) {
	dir, _, err := TryCgroup()
	if FindCgroups() == nil {
		if !errors.Is(err, ErrNotDelegated) {
			t.Errorf("without one of its own: %v", err)
		}
		return
	}
	left, _ := filepath.Glob(dir + "/gapless-*")
	if err != nil || dir == "" || len(left) > 0 {
		t.Errorf("in %q, left %v: %v", dir, left, err)
	}
}

func TestTryDescriptors(t *testing.T) {
	limit, err := Descriptors()
	if err != nil {
		t.Fatal(err)
	}
	if err := TryDescriptors(10); err != nil {
		t.Error(err)
	}
	if err := TryDescriptors(int(limit)); limit < 1<<20 && err == nil {
		t.Errorf("%d more could be opened, of %d", limit, limit)
	}
}

// The tightest of the limits counts.
func TestTasks(t *testing.T) {
	top := t.TempDir()
	write := func(dir, limit, used string) {
		program(t, filepath.Join(top, dir, "pids.max"), limit, 0o600)
		program(t, filepath.Join(top, dir, "pids.current"), used, 0o600)
	}
	write("a/b", "max\n", "3\n")
	if got, ok := tasksOf(filepath.Join(top, "a/b"), top, true); ok {
		t.Errorf("without a limit: %+v", got)
	}
	write("a", "100\n", "90\n")
	write("", "1000\n", "200\n")
	if got, ok := tasksOf(filepath.Join(top, "a/b"), top, true); !ok || got != (Tasks{Limit: 100, Used: 90}) {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, ok := tasksOf("", "", false); ok {
		t.Error("a limit of no cgroup")
	}
}
