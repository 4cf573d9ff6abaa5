package spawn

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestExit(t *testing.T) {
	for _, c := range []struct {
		script, text string
		code         int
		signal       syscall.Signal
	}{
		{"exit 0", "exit status 0", 0, 0},
		{"exit 3", "exit status 3", 3, 0},
		{"exit 255", "exit status 255", 255, 0},
		{"kill -TERM $$", "killed by SIGTERM", 143, syscall.SIGTERM},
		{"kill -KILL $$", "killed by SIGKILL", 137, syscall.SIGKILL},
		{"ulimit -c 0; kill -SEGV $$", "killed by SIGSEGV", 139, syscall.SIGSEGV},
	} {
		t.Run(c.script, func(t *testing.T) {
			t.Parallel()
			p := run(t, options(t, "sh", "-c", c.script))
			<-p.Exited()
			if got := p.Exit(); got != (Exit{Code: c.code, Signal: c.signal}) || got.String() != c.text || got.Failed() != (c.code != 0) {
				t.Errorf("%+v, %s", got, got)
			}
		})
	}
}

// os/exec, which reads a wait status, is the yardstick: whether a core is written
// is up to the system.
func TestCoreDumpIsTold(t *testing.T) {
	const script = "ulimit -c unlimited; kill -SEGV $$"
	plain := exec.Command("sh", "-c", script)
	plain.Dir = t.TempDir()
	plain.Run()
	dumped := plain.ProcessState.Sys().(syscall.WaitStatus).CoreDump()
	o := options(t, "sh", "-c", script)
	o.Dir = t.TempDir()
	p := run(t, o)
	<-p.Exited()
	if got := p.Exit(); got.Dumped != dumped || strings.Contains(got.String(), "core dumped") != dumped {
		t.Errorf("%s, and for os/exec dumped is %v", got, dumped)
	}
	if !dumped {
		t.Skip("this system writes no core files")
	}
}

// withChild is a shell whose child is in the background and ignores SIGTERM.
func withChild(t *testing.T, script string) (p *Process, child int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o := options(t, "sh", "-c", `(trap "" TERM; exec sleep 600 >/dev/null) & echo $!; `+script)
	o.Stdout = w
	p = run(t, o)
	w.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, _ = strconv.Atoi(strings.TrimSpace(line))
	return p, child
}

// The main process stays a zombie while one of its group runs: nobody else can get
// its pid, so that a signal to the group hits the group.
func TestNotReapedBeforeTheGroupIsGone(t *testing.T) {
	p, child := withChild(t, "exit 5")
	<-p.Exited()
	if p.Exit().Code != 5 {
		t.Errorf("it ended with %s", p.Exit())
	}
	if got := procState(p.PID()); got != "Z" {
		t.Errorf("it is in state %q", got)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if err := p.Wait(ctx); err == nil || err.Error() != "enough" {
		t.Errorf("waiting: %v", err)
	}
	if members, err := p.Members(); err != nil || len(members) != 1 || members[0] != child {
		t.Errorf("members are %v, %v, the child is %d", members, err, child)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("a signal to one that has ended: %v", err)
	}
	if err := p.SignalGroup(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := p.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if got := procState(p.PID()); got != "" {
		t.Errorf("it is gone, but in state %q", got)
	}
}

func TestSignalGroupReachesGrandchildren(t *testing.T) {
	p, child := withChild(t, "wait")
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	if got := procState(child); got == "" || got == "Z" {
		t.Fatalf("a signal to the main process ended the child: state %q", got)
	}
	if err := p.SignalGroup(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Gone()
	if got := procState(child); got != "" && got != "Z" { // its reaper is somebody else
		t.Errorf("the child is in state %q", got)
	}
}

// After the end a signal goes nowhere, even if the pid is somebody else's by then:
// here it would be the test's own group's.
func TestSignalAfterTheEndIsNone(t *testing.T) {
	p := run(t, options(t, "true"))
	<-p.Gone()
	if err := errors.Join(p.Signal(syscall.SIGKILL), p.SignalGroup(syscall.SIGKILL)); err != nil {
		t.Errorf("%v", err)
	}
	p.pid = unix.Getpgrp()
	for _, err := range []error{p.Signal(syscall.SIGKILL), p.SignalGroup(0)} {
		if err != nil {
			t.Errorf("%v", err)
		}
	}
	if err := p.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSignalsReachTheProcess(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGTERM} {
		p := run(t, options(t, "sleep", "600"))
		if err := p.Signal(s); err != nil {
			t.Fatal(err)
		}
		<-p.Exited()
		if p.Exit().Signal != s {
			t.Errorf("sent %s, %s", SignalName(s), p.Exit())
		}
	}
}

func TestInvalidSignalIsAnError(t *testing.T) {
	p := run(t, options(t, "sleep", "600"))
	if p.Signal(syscall.Signal(200)) == nil || p.SignalGroup(syscall.Signal(200)) == nil {
		t.Error("signal 200 was sent")
	}
}

// Without a descriptor left, a group is neither taken for gone while it runs, nor
// waited for when it has ended.
func TestGroupWithoutADescriptor(t *testing.T) {
	p, _ := withChild(t, "wait")
	lowest, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(lowest)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(lowest), Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &was) })
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	<-p.Exited()
	select {
	case <-p.Gone():
		t.Error("it is gone, and its child runs")
	case <-time.After(300 * time.Millisecond):
	}
	p.SignalGroup(syscall.SIGKILL)
	select {
	case <-p.Gone():
	case <-time.After(20 * time.Second):
		t.Error("it has ended, and is not known to be gone")
	}
	unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
}
