package bind

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// again runs this binary's tests as somebody who may less.
func again(t *testing.T, args []string, attr *syscall.SysProcAttr) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "BIND_TEST_AGAIN=1", "HOME=/nonexistent", "TMPDIR="+os.TempDir())
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	if !strings.Contains(string(out), "PASS") {
		t.Error("nothing was run")
	}
}

// All tests, as nobody: with no_new_privs, and without any capability.
func TestAsNobody(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it is nobody's run already")
	}
	again(t, []string{"-test.skip=TestForeignArchitecture|TestAsNobody"}, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
}

// noAccessTo checks what can't be had of a daemon, and what can.
func noAccessTo(t *testing.T, d *daemon, fd int, reason string) {
	t.Helper()
	d.begin(t, "bind %d 127.0.0.1:0", fd)
	call := d.next(t)
	if call.PID != d.cmd.Process.Pid || call.FD != fd || call.Addr.IsValid() {
		t.Errorf("%s", call)
	}
	_, errSocket := call.Socket()
	_, errEpoll := InEpoll(call.PID, 1, fd)
	_, errNetns := call.SameNetns(nil)
	with, _ := held(t)
	for what, err := range map[string]error{"address": call.Unread, "socket": errSocket, "epoll": errEpoll, "namespace": errNetns, "flags": call.Replace(with, nil)} {
		if !errors.Is(err, ErrNoAccess) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, call.Continue())
	if got := d.said(t); got != "<nil>" {
		t.Errorf("it got %s", got)
	}
}

// A daemon may keep its own user out.
func TestUndumpable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root is not kept out; TestAsNobody runs this")
	}
	d := start(t, setup{})
	fd := d.number(t, "socket tcp4")
	if got := d.do(t, "undumpable"); got != "<nil>" {
		t.Fatal(got)
	}
	noAccessTo(t, d, fd, "PR_SET_DUMPABLE")
}

// Root without CAP_SYS_PTRACE, as in Docker, and a daemon of another uid.
func TestOtherUser(t *testing.T) {
	switch {
	case os.Geteuid() != 0:
		t.Skip("only root can run a daemon as somebody else")
	case os.Getenv("BIND_TEST_AGAIN") == "":
		again(t, []string{"__without", strconv.Itoa(unix.CAP_SYS_PTRACE), "-test.run=^TestOtherUser$"}, nil)
		return
	}
	d := start(t, setup{uid: 65534})
	noAccessTo(t, d, d.number(t, "socket tcp4"), "it runs as uid 65534 and this process as uid 0, without CAP_SYS_PTRACE")
}

func TestReasons(t *testing.T) {
	for want, r := range map[string]refusal{
		"Linux 5.6":                       {errno: unix.ENOSYS},
		"uid 7 and this process as uid 8": {errno: unix.EPERM, ours: 8, theirs: 7, scope: 1},
		"ptrace_scope is 3":               {errno: unix.EPERM, scope: 3},
		"ptrace_scope is 2, and":          {errno: unix.EPERM, scope: 2},
		"ptrace_scope is 1, and":          {errno: unix.EPERM, scope: 1},
		"--cap-add SYS_PTRACE":            {errno: unix.EPERM, scope: 1, getfd: unix.EPERM},
		"PR_SET_DUMPABLE":                 {errno: unix.EPERM, theirs: -1, ours: 8},
	} {
		if got := r.reason(); !strings.Contains(got, want) {
			t.Errorf("%+v: %s", r, got)
		}
	}
}

// The memory is read through its file where the system call is forbidden.
func TestMemoryFile(t *testing.T) {
	d := start(t, setup{})
	fd := d.number(t, "socket tcp4")
	d.begin(t, "raw %d 0200005000000001x", fd)
	call := d.next(t)
	if call.Unread != nil || call.Family != unix.AF_INET {
		t.Errorf("%s: %v", call, call.Unread)
	}
	b := make([]byte, 8)
	if err := call.readMemoryFile(b, 1); !errors.Is(err, unix.EFAULT) {
		t.Errorf("at address 1: %v", err)
	}
	at := memoryOf(t, call.TID)
	if err := call.readMemoryFile(b, at); err != nil || string(b) != "\x02\x00\x00\x50\x00\x00\x00\x01" {
		t.Errorf("% x, %v", b, err)
	}
	must(t, call.Continue())
	d.said(t)
}

// memoryOf is the second argument of the call that a thread is in (proc_pid_syscall(5)).
func memoryOf(t *testing.T, tid int) uintptr {
	t.Helper()
	b, err := os.ReadFile(procFile(tid, "syscall"))
	if err != nil {
		t.Skipf("/proc/PID/syscall tells nothing here: %v", err)
	}
	at, err := strconv.ParseUint(strings.Fields(string(b))[2], 0, 64)
	must(t, err)
	return uintptr(at)
}

// An address that is nowhere is for the kernel to tell.
func TestFault(t *testing.T) {
	d := start(t, setup{})
	fd := d.number(t, "socket tcp4")
	d.begin(t, "fault %d", fd)
	call := d.next(t)
	if !errors.Is(call.Unread, unix.EFAULT) || errors.Is(call.Unread, ErrNoAccess) {
		t.Errorf("%v", call.Unread)
	}
	must(t, call.Continue())
	if got := d.said(t); got != "EFAULT" {
		t.Error(got)
	}
}
