package control

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload"
)

// stale leaves a socket file at which nobody answers.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestListenMode(t *testing.T) {
	before := syscall.Umask(0)
	defer syscall.Umask(before)
	path := filepath.Join(t.TempDir(), "web.sock")
	s, err := Listen(within(t), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Remove()
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left := files(t, filepath.Dir(path)); !slices.Equal(left, []string{"web.sock"}) {
		t.Errorf("beside it there is %v", left)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestListenReplacesStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.sock")
	stale(t, path)
	s, err := Listen(within(t), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Remove(), s.Remove()); err != nil {
		t.Error(err)
	}
	if left := files(t, filepath.Dir(path)); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	alive := filepath.Join(dir, "alive.sock")
	s, err := Listen(within(t), alive)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Remove()
	file := filepath.Join(dir, "file.sock")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.sock")
	if err := os.Symlink(alive, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		alive:                              "already running as pid ",
		file:                               "something that is not a socket",
		link:                               "something that is not a socket",
		filepath.Join(dir, "no", "x.sock"): "there is no such directory",
		filepath.Join(file, "x.sock"):      "not a directory",
		"/proc/x.sock":                     "can't open the control socket /proc/x.sock",
		"/tmp/" + strings.Repeat("x", 100) + ".sock": "the path has 110 bytes, at most 107",
	} {
		s, err := Listen(within(t), path)
		if err == nil {
			s.Remove()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	var running *RunningError
	if _, err := Listen(within(t), alive); !errors.As(err, &running) || running.PID != os.Getpid() {
		t.Errorf("%v does not name pid %d", err, os.Getpid())
	}
	if _, err := os.Lstat(file); err != nil {
		t.Errorf("the file is gone: %v", err)
	}
}

// TestListenRace: of many that start at once over a stale file one gets it, and it
// stays its own.
func TestListenRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.sock")
	stale(t, path)
	var wg sync.WaitGroup
	got := make(chan *Socket, 20)
	for range cap(got) {
		wg.Go(func() {
			s, err := Listen(within(t), path)
			var running *RunningError
			if err == nil {
				got <- s
			} else if !errors.As(err, &running) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Fatalf("%d have it", len(got))
	}
	s := <-got
	if pid, err := answers(within(t), path); err != nil || pid != os.Getpid() {
		t.Errorf("nobody answers: %d, %v", pid, err)
	}
	s.Remove()
}

// TestRemoveLeavesAnothers: somebody removed our file, and another holder has made
// its own.
func TestRemoveLeavesAnothers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.sock")
	ours, err := Listen(within(t), path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	another, err := Listen(within(t), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := answers(within(t), path); err != nil {
		t.Errorf("the other's socket is gone: %v", err)
	}
	another.Remove()
}

// TestLockOfAnotherFile: who held the lock has removed its file, and somebody else
// has made and locked a new one; a lock on the old one keeps nobody out.
func TestLockOfAnotherFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.lock")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if taken, err := tryLock(f); taken || err != nil {
		t.Errorf("taken: %v, %v", taken, err)
	}
}

func TestLockStuck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.sock")
	unlock, err := lock(within(t), path)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Listen(ctx, path); err == nil || !strings.Contains(err.Error(), "another process has held it for long") {
		t.Errorf("%v", err)
	}
}

func TestRuntimeDirectory(t *testing.T) {
	env := map[string]string{"XDG_RUNTIME_DIR": "/run/user/7", "GAPLESS_RUNTIME_DIR": "/x"}
	get := func(k string) string { return env[k] }
	if d := RuntimeDirectory(get); d.Path != "/x" {
		t.Errorf("%+v", d)
	}
	delete(env, "GAPLESS_RUNTIME_DIR")
	want := "/run/user/7/gapless"
	if os.Geteuid() == 0 {
		want = "/run/gapless"
	}
	if d := RuntimeDirectory(get); d.Path != want || d.public {
		t.Errorf("%+v, want %s", d, want)
	}
}

// TestPublicDirectory: in /tmp somebody may have been there first.
func TestPublicDirectory(t *testing.T) {
	dir := t.TempDir()
	good := Directory{Path: filepath.Join(dir, "good"), public: true}
	if err := errors.Join(good.Make(), good.Make()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(good.Path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	link := filepath.Join(dir, "link")
	open := filepath.Join(dir, "open")
	file := filepath.Join(dir, "file")
	if err := errors.Join(os.Symlink(good.Path, link), os.Mkdir(open, 0o700), os.Chmod(open, 0o750), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	paths := []string{link, open, file}
	if os.Geteuid() == 0 {
		theirs := filepath.Join(dir, "theirs")
		if err := errors.Join(os.Mkdir(theirs, 0o700), os.Chown(theirs, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, theirs)
	}
	for _, p := range paths {
		d := Directory{Path: p, public: true}
		_, errFind := d.Find(within(t), "web")
		_, errRunning := d.Running(within(t))
		for _, err := range []error{d.Make(), errFind, errRunning} {
			if err == nil || !strings.Contains(err.Error(), "must be a directory of yours") {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
}

func TestFind(t *testing.T) {
	d := Directory{Path: t.TempDir()}
	ctx := within(t)
	_, err := d.Find(ctx, "")
	wantFailure(t, err, reload.CodeNotRunning, "no service is running")
	_, err = Directory{Path: d.Path + "/no"}.Find(ctx, "")
	wantFailure(t, err, reload.CodeNotRunning, "no service is running")

	stale(t, d.Socket("dead"))
	a, err := Listen(ctx, d.Socket("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Remove()
	if c, err := d.Find(ctx, ""); err != nil || c.Name() != "a" {
		t.Errorf("%v, %v", c, err)
	}
	b, err := Listen(ctx, d.Socket("b"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Remove()
	var several *AmbiguousError
	if _, err := d.Find(ctx, ""); !errors.As(err, &several) || !slices.Equal(several.Names, []string{"a", "b"}) {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(d.Socket("dead")); errors.Is(err, fs.ErrNotExist) {
		t.Error("looking removed a file")
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"web", "a.b-c_1@x", strings.Repeat("x", 64)} {
		if err := CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "../x", "a/b", "-x", "a b", "a:b", "ä", "a\n", strings.Repeat("x", 65)} {
		if CheckName(bad) == nil {
			t.Errorf("%q is taken for a name", bad)
		}
	}
}
