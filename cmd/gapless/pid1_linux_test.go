package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/reload/control"
)

// firstVerb is what the test binary is told to be pid 1 by.
const firstVerb = "__first"

// Before TestMain, whose roles are those of every system.
func init() {
	if len(os.Args) > 2 && os.Args[1] == firstVerb {
		os.Exit(first(os.Args[2:]))
	}
}

// first becomes gapless as pid 1, as a container's entry point does that has started
// something before: a child that gapless does not know, and an orphan.
func first(args []string) int {
	err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("proc", "/proc", "proc", 0, "")
	}
	if err == nil {
		err = exec.Command("sleep", "600").Start()
	}
	if err == nil {
		err = exec.Command("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 &").Run()
	}
	if err == nil {
		err = syscall.Exec("/proc/self/exe", args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func TestStrangersOfPID1(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a pid namespace")
	}
	path := t.TempDir() + "/web.sock"
	cmd := runAsFirst(t, "gapless", "run", "-n", "web", "-l", "127.0.0.1:0", "--control", path, "--", "daemon")
	client := control.NewClient("web", path)
	untilLive(t, client, 1)
	strangers := sleepersOf(t, cmd.Process.Pid)
	if len(strangers) != 2 {
		t.Fatalf("%d strangers", len(strangers))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := client.Reload(ctx, control.ReloadOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, pid := range strangers {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Errorf("a stranger was killed already: %v", err)
		}
		soon(t, "its reaping", func() bool { _, err := os.Stat("/proc/" + strconv.Itoa(pid)); return err != nil })
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// runAsFirst starts it in a pid namespace of its own.
func runAsFirst(t *testing.T, argv ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"gapless", "daemon"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	cmd := exec.Command("/proc/self/exe", append([]string{firstVerb}, argv...)...)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0")
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &log, &log, time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Skip("needs a pid namespace: ", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("it said:\n%s", log.Bytes())
		}
	})
	return cmd
}

func untilLive(t *testing.T, c *control.Client, number int) {
	t.Helper()
	soon(t, "a live generation", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		s, err := c.Status(ctx)
		return err == nil && s.Live() != nil && s.Live().Number == number
	})
}

func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// sleepersOf are the children of a process that are called sleep.
func sleepersOf(t *testing.T, parent int) []int {
	t.Helper()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var pids []int
	for _, path := range stats {
		b, _ := os.ReadFile(path)
		pid, rest, _ := strings.Cut(string(b), " (sleep) ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, n)
		}
	}
	return pids
}
