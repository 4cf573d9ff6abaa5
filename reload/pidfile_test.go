package reload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
)

// Whoever reads the file while it is replaced reads a whole number.
func TestPIDFileFollowsLive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "web.pid")
	cfg := config(t)
	cfg.PIDFile = file
	f := start(t, cfg)
	f.until("generation 1", live(1))
	ctx, cancel := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	reading.Go(func() { readAlways(ctx, t, file) })
	for n := 1; n <= 3; n++ {
		st := f.until("the generation", live(n))
		if b, err := os.ReadFile(file); string(b) != fmt.Sprintf("%d\n", st.Live().PID) {
			t.Errorf("the file says %q, %v, live is %d", b, err, st.Live().PID)
		}
		if n < 3 {
			f.mustReload()
		}
	}
	cancel()
	reading.Wait()
	f.end()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in its directory: %v, %v", left, err)
	}
}

func readAlways(ctx context.Context, t *testing.T, file string) {
	whole := regexp.MustCompile(`^[0-9]+\n$`)
	for ctx.Err() == nil {
		if b, err := os.ReadFile(file); err != nil || !whole.Match(b) {
			t.Errorf("read %q, %v", b, err)
			return
		}
	}
}

// Without a live process the file would name whoever gets its pid next.
func TestPIDFileGoesWithTheProcess(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.PIDFile = filepath.Join(t.TempDir(), "web.pid")
	f := start(t, cfg)
	f.until("generation 1", live(1))
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(cfg.PIDFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stopped, the file says %q, %v", b, err)
	}
	if _, err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid := f.until("generation 2", live(2)).Live().PID
	if b, _ := os.ReadFile(cfg.PIDFile); string(b) != fmt.Sprintln(pid) {
		t.Errorf("started again, the file says %q, live is %d", b, pid)
	}
}

// A file that somebody else has written since is theirs.
func TestPIDFileOfAnotherStays(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "web.pid")
	cfg := config(t)
	cfg.PIDFile = file
	f := start(t, cfg)
	f.until("generation 1", live(1))
	write(t, file, "1\n")
	f.end()
	if b, err := os.ReadFile(file); string(b) != "1\n" {
		t.Errorf("the file says %q, %v", b, err)
	}
}

func TestPIDFileThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.PIDFile = filepath.Join(t.TempDir(), "absent", "web.pid")
	f := start(t, cfg)
	f.expected = []string{"pid-file.failed"}
	f.until("the report", f.happened("pid-file.failed"))
	if got := f.generation(); got != "1" {
		t.Errorf("answered by %q", got)
	}
}
