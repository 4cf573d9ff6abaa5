package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gapless-dev/gapless/reload"
)

// pidsGroup makes a cgroup of the pids controller that goes with the test, and returns
// its directory.
func pidsGroup(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a cgroup of its own needs root")
	}
	for _, parent := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		dir := filepath.Join(parent, fmt.Sprintf("gapless-test-%d-%d", os.Getpid(), len(t.Name())))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			waitUntil(t, "the end of the cgroup", func() bool {
				b, _ := os.ReadFile(dir + "/cgroup.procs") // a holder that died has left its daemon
				for _, word := range strings.Fields(string(b)) {
					if pid, err := strconv.Atoi(word); err == nil {
						syscall.Kill(pid, syscall.SIGKILL)
					}
				}
				return os.Remove(dir) == nil
			})
		})
		if _, err := os.Stat(dir + "/pids.max"); err == nil {
			return dir
		}
	}
	t.Skip("there is no cgroup with the pids controller")
	return ""
}

// inGroup starts the holder there.
func inGroup(dir string) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		c.Args = append([]string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, dir + "/cgroup.procs", c.Path}, c.Args[1:]...)
		c.Path = "/bin/sh"
	}
}

// allow so many more processes and threads; negative is no limit.
func allow(t *testing.T, dir string, more int) {
	t.Helper()
	limit := "max"
	if more >= 0 {
		b, err := os.ReadFile(dir + "/pids.current")
		now, convErr := strconv.Atoi(strings.TrimSpace(string(b)))
		if err := errors.Join(err, convErr); err != nil {
			t.Fatal(err)
		}
		limit = strconv.Itoa(now + more)
	}
	if err := os.WriteFile(dir+"/pids.max", []byte(limit), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Without processes or threads for it, a reload fails with a reason, or succeeds; the
// holder lives on, clients notice nothing, nothing stays behind, and the next one works
// when there are some.
func TestReloadWithoutProcesses(t *testing.T) {
	t.Parallel()
	dir := pidsGroup(t)
	h := hold(t, inGroup(dir), "--", "daemon", "threads") // which the limit holds for too
	h.mustReload()
	h.quiet()
	files := h.settledFiles()
	stop := h.load()
	failed, succeeded := 0, 0
	for more := 0; more <= 48; more += every(12) {
		allow(t, dir, more)
		var crowd sync.WaitGroup // so that the holder has use for threads
		for range 20 {
			crowd.Go(func() {
				if _, err := h.client.Status(h.within()); err != nil {
					t.Errorf("status with room for %d: %v", more, err)
				}
			})
		}
		_, err := h.reload()
		crowd.Wait()
		allow(t, dir, -1)
		var f *reload.Failure
		switch {
		case err == nil:
			succeeded++
		case errors.As(err, &f) && f.Generation > 0 && (f.Code == reload.CodeFailed || f.Code == reload.CodeNotReady):
			failed++
			h.mustReload()
		default:
			t.Fatalf("with room for %d: %#v", more, err)
		}
		if more == 0 && !strings.Contains(fmt.Sprint(err), "no more processes are allowed: raise the limit") {
			t.Errorf("without any: %v", err)
		}
		h.quiet()
	}
	if failed == 0 || succeeded == 0 {
		t.Errorf("%d reloads failed, %d succeeded", failed, succeeded)
	}
	stop()
	h.mustBeAsBefore(files)
}

// The same by the limit of a user (setrlimit(2), RLIMIT_NPROC), which does not hold for root.
func TestReloadWithoutProcessesForTheUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a user of its own needs root")
	}
	const uid = 47113 // nobody else's
	h := hold(t, func(c *exec.Cmd) {
		for _, a := range c.Args {
			if strings.HasSuffix(a, "web.sock") {
				if err := os.Chown(filepath.Dir(a), uid, uid); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.Chmod(filepath.Dir(filepath.Dir(c.Path)), 0o755); err != nil {
			t.Fatal(err)
		}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	})
	limit := func(n string) { // as that user, as whom it needs no privilege
		c := exec.Command("prlimit", "--pid", strconv.Itoa(h.pid()), "--nproc="+n+":")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	stop := h.load()
	for range 2 {
		limit("1")
		_, err := h.reload()
		var f *reload.Failure
		if !errors.As(err, &f) || f.Code != reload.CodeFailed || !strings.Contains(f.Reason, "no more processes are allowed: raise the limit of the user (ulimit -u") {
			t.Errorf("the reload: %#v", err)
		}
		limit("4096")
		h.mustReload()
	}
	stop()
}
