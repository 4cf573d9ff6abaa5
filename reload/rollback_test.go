package reload

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

func (f *fixture) rollback() (Result, error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	return f.Rollback(ctx, "test")
}

// refused is the code of a Failure that says so.
func refused(t *testing.T, err error, code int, why string) {
	t.Helper()
	var failure *Failure
	if !errors.As(err, &failure) || failure.Code != code || !strings.Contains(failure.Error(), why) {
		t.Errorf("want code %d and %q: %v", code, why, err)
	}
}

// In its probation a generation is given up by one system call, under load.
func TestRollbackInProbation(t *testing.T) {
	t.Parallel()
	f, answers := onProbation(t, time.Minute)
	stop := f.load()
	r, err := f.rollback()
	if err != nil || r.Generation != 1 || !r.Back {
		t.Errorf("%+v, %v", r, err)
	}
	if got := f.generation(); got != "1" {
		t.Errorf("answered by %q", got)
	}
	refused(t, (<-answers).failure, CodeRolledBack, "generation 2 was given up: test")
	st := f.until("the end of generation 2", phase(2, state.Gone))
	stop()
	if g := st.Generation(2); g.Exit != "exit status 0" || g.Signalled.IsZero() {
		t.Errorf("generation 2: %+v", g)
	}
	if g := st.Live(); !g.Signalled.IsZero() {
		t.Error("generation 1 was told to stop")
	}
	f.mustReloadOnProbation(3)
}

func (f *fixture) mustReloadOnProbation(number int) {
	f.t.Helper()
	f.Trigger(ReloadOptions{Reason: "test"})
	f.until("the next", live(number))
}

// Without probation the way back is as short until the stop signal is sent.
func TestRollbackBeforeTheStopSignal(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	addr := f.until("generation 1", live(1)).Endpoints[0].Addr
	c, err := net.Dial("tcp", addr) // not answered yet, it keeps generation 1 from settling
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f.untilCounted("the connection", func(s Status) bool { return s.MeasuredOf(*s.Generation(1)).Connections == 1 })
	f.mustReload()
	r, err := f.rollback()
	if err != nil || r.Generation != 1 || !r.Back {
		t.Errorf("%+v, %v", r, err)
	}
	f.until("the end of generation 2", phase(2, state.Gone))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
	c.SetDeadline(time.Now().Add(patience))
	if b, err := io.ReadAll(c); err != nil || !strings.Contains(string(b), "1 ") {
		t.Errorf("got %q, %v", b, err)
	}
	if st := f.until("generation 1 to stay", live(1)); !st.Live().Signalled.IsZero() {
		t.Error("it was told to stop")
	}
	f.mustReload()
}

// release makes a directory with a program in it: the test daemon, by a link that is
// of no use once the directory is gone, or as a file of its own.
func release(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "web"), b, 0o755); err != nil {
		t.Fatal(err)
	}
}

func point(t *testing.T, link, to string) {
	t.Helper()
	os.Remove(link)
	if err := os.Symlink(to, link); err != nil {
		t.Fatal(err)
	}
}

// The usual layout: releases/N, and a link to the one that is current.
func released(t *testing.T) (f *fixture, root string) {
	t.Helper()
	root = t.TempDir()
	release(t, root+"/1")
	point(t, root+"/current", root+"/1")
	cfg := config(t)
	cfg.Command[0], cfg.Dir = "./web", root+"/current"
	f = start(t, cfg)
	f.until("generation 1", live(1))
	return f, root
}

func (f *fixture) deploy(root, number string) {
	f.t.Helper()
	release(f.t, root+"/"+number)
	point(f.t, root+"/current", root+"/"+number)
	f.mustReload()
	f.until("the end of the old one", func(s Status) bool {
		return len(s.Generations) > 0 && s.Generations[len(s.Generations)-2].Phase == state.Gone
	})
}

// Later, a new generation is what the old one was: its directory, wherever the links
// lead now; and it stays so through crashes and stops, until somebody reloads.
func TestRollbackLater(t *testing.T) {
	t.Parallel()
	f, root := released(t)
	f.deploy(root, "2")
	in := func(want, when string) {
		t.Helper()
		if got := f.get("/cwd"); got != root+"/"+want {
			t.Errorf("%s: it runs in %q, not in %s", when, got, want)
		}
	}
	in("2", "deployed")
	r, err := f.rollback()
	if err != nil || r.Generation != 3 || r.Of != 1 || r.Back {
		t.Errorf("%+v, %v", r, err)
	}
	in("1", "rolled back")
	f.get("/die")
	f.until("generation 4", live(4))
	in("1", "restarted")
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	in("1", "stopped and started")
	f.mustReload()
	in("2", "reloaded")
}

// A second rollback goes forth again.
func TestRollbackOfARollback(t *testing.T) {
	t.Parallel()
	f, root := released(t)
	f.deploy(root, "2")
	for n, want := range []string{"1", "2", "1"} {
		if r, err := f.rollback(); err != nil || r.Generation != n+3 && !r.Back {
			t.Fatalf("%+v, %v", r, err)
		}
		if got := f.get("/cwd"); got != root+"/"+want {
			t.Errorf("rollback %d: it runs in %q", n+1, got)
		}
		f.until("the others to be gone", func(s Status) bool {
			running := 0
			for _, g := range s.Generations {
				if g.Phase.Running() {
					running++
				}
			}
			return running == 1
		})
	}
}

// The program that was replaced at its path, or removed, is run from what was kept.
func TestRollbackToAProgramThatWasReplaced(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(path string) error
	}{
		{"replaced", func(path string) error {
			if err := os.WriteFile(path+".new", []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}},
		{"removed", os.Remove},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f, root := released(t)
			f.deploy(root, "2")
			if err := c.change(root + "/1/web"); err != nil {
				t.Fatal(err)
			}
			r, err := f.rollback()
			if err != nil || r.Generation != 3 {
				t.Fatalf("%+v, %v", r, err)
			}
			if got := f.get("/cwd"); got != root+"/1" {
				t.Errorf("it runs in %q", got)
			}
		})
	}
}

// What is not there any more is said, and live stays.
func TestRollbackThatIsRefused(t *testing.T) {
	t.Parallel()
	t.Run("nothing before", func(t *testing.T) {
		t.Parallel()
		f := start(t, config(t))
		f.until("generation 1", live(1))
		_, err := f.rollback()
		refused(t, err, CodeFailed, "has no generation to go back to")
	})
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		f := start(t, config(t))
		f.until("generation 1", live(1))
		f.Stop(t.Context())
		_, err := f.rollback()
		refused(t, err, CodeNotRunning, "has no live generation")
	})
	t.Run("reload under way", func(t *testing.T) {
		t.Parallel()
		f := start(t, config(t))
		f.until("generation 1", live(1))
		f.Trigger(ReloadOptions{Change: Change{Command: append(f.command(), "hang")}})
		f.until("the candidate", phase(2, state.Starting))
		_, err := f.rollback()
		refused(t, err, CodeBusy, "is being reloaded")
	})
	t.Run("directory gone", func(t *testing.T) {
		t.Parallel()
		f, root := released(t)
		f.deploy(root, "2")
		os.RemoveAll(root + "/1")
		_, err := f.rollback()
		refused(t, err, CodeRefused, "can't be what generation 1 was: its directory "+root+"/1 is not there any more")
		if got := f.generation(); got != "2" {
			t.Errorf("answered by %q", got)
		}
	})
	t.Run("overwritten", func(t *testing.T) {
		t.Parallel()
		f, root := released(t)
		f.deploy(root, "2")
		f.until("its hash", func(s Status) bool { return s.Generation(1) != nil })
		if err := os.WriteFile(root+"/1/web", []byte("other"), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := f.rollback()
		refused(t, err, CodeRefused, root+"/1/web was overwritten")
	})
	t.Run("script replaced", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		script := "#!/bin/sh\nexec '" + os.Args[0] + "' daemon\n"
		write(t, root+"/web", script)
		os.Chmod(root+"/web", 0o755)
		cfg := config(t)
		cfg.Command = []string{root + "/web"}
		f := start(t, cfg)
		f.until("generation 1", live(1))
		write(t, root+"/new", script)
		os.Chmod(root+"/new", 0o755)
		if err := os.Rename(root+"/new", root+"/web"); err != nil {
			t.Fatal(err)
		}
		f.mustReload()
		f.until("the end of generation 1", phase(1, state.Gone))
		_, err := f.rollback()
		refused(t, err, CodeRefused, "a script can't be run from what was kept")
	})
}
