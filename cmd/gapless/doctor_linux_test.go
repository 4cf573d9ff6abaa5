package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/reload/spawn"
)

// deprivedVerb is what the test binary is told to give rights up by, before it is gapless.
const deprivedVerb = "__deprived"

func init() {
	if len(os.Args) > 2 && os.Args[1] == deprivedVerb {
		os.Exit(deprived(os.Args[2], os.Args[3:]))
	}
}

// deprived gives the rights up and becomes the command; it returns only if it can't.
func deprived(what string, args []string) int {
	runtime.LockOSThread() // a filter is a thread's
	self, err := os.Executable()
	for _, one := range strings.Fields(what) {
		err = errors.Join(err, giveUp(one))
	}
	if _, noProc := os.Stat("/proc/self/exe"); noProc == nil {
		self = "/proc/self/exe" // another user may not get to its path
	}
	if err == nil {
		err = unix.Exec(self, args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	return 99
}

func giveUp(what string) error {
	switch what {
	case "files":
		return syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64})
	case "root":
		return errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534))
	case "ptrace": // execve gives root what is in the bounding set
		return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0)
	case "setuid":
		return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	case "proc":
		return errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("nothing", "/proc", "tmpfs", 0, ""))
	case "dumps":
		return forbid(rule{nr: unix.SYS_PIDFD_GETFD}, rule{nr: unix.SYS_PROCESS_VM_READV})
	case "filters":
		return forbid(rule{nr: unix.SYS_SECCOMP})
	case "programs":
		return forbid(rule{nr: unix.SYS_SETSOCKOPT, arg: 2, is: unix.SO_ATTACH_REUSEPORT_CBPF})
	case "devices":
		return forbid(rule{nr: unix.SYS_SETSOCKOPT, arg: 2, is: unix.SO_BINDTOIFINDEX})
	case "netlink":
		return forbid(rule{nr: unix.SYS_SOCKET, arg: 0, is: unix.AF_NETLINK})
	case "barrier":
		return forbid(rule{nr: unix.SYS_MEMBARRIER})
	case "pidfds":
		return forbid(rule{nr: unix.SYS_PIDFD_OPEN})
	}
	return fmt.Errorf("what is %q?", what)
}

// rule forbids a system call, as a container's profile does: all of it, or where an
// argument is so.
type rule struct{ nr, arg, is uint32 }

func forbid(rules ...rule) error {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	var p []unix.SockFilter
	for _, r := range rules {
		no := unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
		p = append(p, unix.SockFilter{Code: load, K: 0})
		if r.is == 0 {
			p = append(p, unix.SockFilter{Code: equal, K: r.nr, Jf: 1}, no)
			continue
		}
		p = append(p, unix.SockFilter{Code: equal, K: r.nr, Jf: 3}, unix.SockFilter{Code: load, K: 16 + 8*r.arg}, unix.SockFilter{Code: equal, K: r.is, Jf: 1}, no)
	}
	p = append(p, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
	if os.Geteuid() != 0 {
		if err := giveUp("setuid"); err != nil {
			return err
		}
	}
	return setFilter(p)
}

func setFilter(p []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	_, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errno
	}
	return nil
}

// expected is what must be said of a check.
type expected struct{ name, state, words string }

func TestDoctorWithoutRights(t *testing.T) {
	for _, c := range []struct {
		without string
		root    bool // only root can give that up
		code    int
		missing string
		want    []expected
	}{
		{"files", false, 0, "", []expected{{"open files", stateLimited, "RLIMIT_NOFILE is 64"}, {"open files", stateLimited, "LimitNOFILE="}}},
		{"setuid", false, 0, "", []expected{{"no_new_privs", stateOK, "set already on gapless itself"}}},
		{"dumps", false, 0, "", []expected{
			{"bind: address", stateOK, ""}, {"bind: keep", stateLimited, "--cap-add SYS_PTRACE"}, {"bind: keep", stateLimited, "must be given with -l"}, {"bind: replace", stateOK, ""},
			{"seccomp profile", stateOK, "already"}}},
		{"filters", false, 1, "bind", []expected{{"bind", stateMissing, "a seccomp profile forbids seccomp(2)"}, {"bind", stateMissing, "--security-opt seccomp="}, {"steering", stateOK, ""}}},
		{"programs", false, 1, "steering", []expected{{"steering", stateMissing, "operation not permitted"}, {"steering", stateMissing, "share one listener"}, {"sharing", stateOK, ""}, {"bind", stateOK, ""}}},
		{"devices", false, 0, "", []expected{{"hiding", stateLimited, "NET_RAW"}}},
		{"netlink", false, 0, "", []expected{{"following", stateLimited, "each reload waits 8 s"}}},
		{"barrier", false, 0, "", []expected{{"barrier", stateLimited, "waits 100 ms"}}},
		{"pidfds", false, 1, "orphans", []expected{{"orphans", stateMissing, "does not start"}}},
		{"root", true, 0, "", []expected{
			{"another user", stateLimited, "takes root"}, {"no_new_privs", stateLimited, "--cap-add SYS_ADMIN"}, {"control socket", stateLimited, "HUP reloads"}, {"bind: keep", stateOK, ""}}},
		{"ptrace", true, 0, "", []expected{{"bind: keep", stateOK, ""}, {"another user", stateLimited, "as uid 0, without CAP_SYS_PTRACE"}, {"another user", stateLimited, "one that takes LISTEN_FDS is"}}},
		{"ptrace dumps", true, 0, "", []expected{{"bind: keep", stateLimited, "pidfd_getfd"}, {"another user", stateLimited, "--cap-add SYS_PTRACE"}}},
		{"proc", true, 1, "bind: address", []expected{{"/proc", stateMissing, "mount -t proc"}, {"bind: address", stateMissing, "no such file"}, {"steering", stateOK, ""}}},
	} {
		t.Run(c.without, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("needs root, to give that up")
			}
			d, code := doctorWithout(t, c.without)
			if code != c.code || d.OK != (code == 0) || !strings.Contains(strings.Join(d.Missing, ", "), c.missing) {
				t.Errorf("it ended with %d, missing %q", code, d.Missing)
			}
			for _, want := range c.want {
				hasCheck(t, d, want)
			}
		})
	}
}

func hasCheck(t *testing.T, d diagnosis, want expected) {
	t.Helper()
	for _, c := range d.Checks {
		if c.Name != want.name {
			continue
		}
		if all := c.Found + "\n" + c.Means + "\n" + c.Do; c.State != want.state || !strings.Contains(all, want.words) {
			t.Errorf("want %s to be %s and to say %q; it says %+v", want.name, want.state, want.words, c)
		}
		if c.State != stateOK && (c.Means == "" || c.Do == "") {
			t.Errorf("%s is %s, and what that means or what to do is not said: %+v", c.Name, c.State, c)
		}
		return
	}
	t.Errorf("there is no check %q", want.name)
}

// doctorWithout runs it in a directory that is this user's.
func doctorWithout(t *testing.T, what string) (diagnosis, int) {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", deprivedVerb, what, "gapless", "doctor", "-o", "json", "--timeout", "20s")
	cmd.Env = append(os.Environ(), "GAPLESS_RUNTIME_DIR="+filepath.Join(dir, "run"), "GORACE=atexit_sleep_ms=0")
	cmd.WaitDelay = time.Second
	if what == "proc" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	}
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	var d diagnosis
	if jsonErr := json.Unmarshal(out, &d); jsonErr != nil {
		t.Fatalf("%v: %v\n%s%s", err, jsonErr, out, &errors)
	}
	if errors.Len() > 0 && what != "proc" { // the race detector says there that it misses it
		t.Errorf("it says on standard error: %s", &errors)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	return d, cmd.ProcessState.ExitCode()
}

// Under somebody's filter that notifies there is no other one: gapless in gapless.
func TestDoctorUnderGapless(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p, err := spawn.Start(t.Context(), spawn.Options{
		Order: spawn.Order{Argv: []string{"gapless", "doctor", "-o", "json", "--timeout", "20s"}, Path: "/proc/self/exe", Bind: true,
			Env: []string{"GAPLESS_RUNTIME_DIR=" + t.TempDir(), "GORACE=atexit_sleep_ms=0"}},
		Shim: []string{"/proc/self/exe", shimVerb}, Stdin: null, Stdout: out, Stderr: out,
	})
	if err != nil {
		t.Fatal(err)
	}
	w := p.BindWatch()
	if w == nil {
		t.Fatal(p.BindNote())
	}
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		c, err := w.Next(ctx)
		if err != nil {
			break // it has ended
		}
		if err := c.Continue(); err != nil {
			t.Error(err)
		}
	}
	if err := p.Wait(ctx); err != nil {
		p.Kill()
		<-p.Gone()
		t.Fatal(err)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	var d diagnosis
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatalf("%v:\n%s", err, b)
	}
	if p.Exit().Code != codeFailed || d.OK || strings.Join(d.Missing, " ") != "bind" {
		t.Errorf("it ended with %s, missing %q", p.Exit(), d.Missing)
	}
	hasCheck(t, d, expected{"bind", stateMissing, "the kernel takes only one"})
	hasCheck(t, d, expected{"bind", stateMissing, "another gapless"})
	hasCheck(t, d, expected{"steering", stateOK, ""})
}

// What people see of it is what programs see.
func TestDiagnosisInWords(t *testing.T) {
	d := diagnosis{Version: "v1", OS: "linux", Arch: "amd64", Place: spawn.Place{Kernel: "6.1", UID: 1000, Container: "podman", IsFirst: true}, Checks: []check{
		{Name: "one", State: stateOK, Tried: "this", Found: "fine"},
		{Name: "two", State: stateLimited, Found: strings.Repeat("long ", 40) + "end", Means: "less", Do: "more"},
		{Name: "three", State: stateMissing, Found: "not there\nat all"},
	}}
	d.judge()
	if !d.OK || len(d.Missing) > 0 {
		t.Errorf("what is not needed is missed: %+v", d)
	}
	text := d.text(false, true)
	for _, want := range []string{
		"gapless v1 on Linux 6.1, amd64, as uid 1000, in a container (podman), as pid 1\n", "\none    \x1b[32mok     \x1b[0m  fine\n", "\x1b[33mlimited\x1b[0m  long long",
		"three  \x1b[31mmissing\x1b[0m  not there at all\n", "\ntwo: limited\n  found  long ", "end\n  means  less\n  do     more\n", "whatever the daemon. 2 checks are less than ok.\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "tried") {
		t.Errorf("it says too much:\n%s", text)
	}
	d.Checks[2].Needed = true
	d.judge()
	if d.OK || !strings.HasSuffix(d.text(false, false), "\nGenerations can't overlap here as they should; missing: three.\n") {
		t.Errorf("what is needed is not missed:\n%s", d.text(false, false))
	}
}

func TestKernelsByNumber(t *testing.T) {
	for release, want := range map[string]string{
		"4.19.0-27-amd64": "needs Linux 5.9", "5.9.0": "killed one by one", "5.15.153.1-microsoft-standard-WSL2": "asked about twice", "5.19": "", "6.18.44-fc": "", "10.0-rc1": "", "strange": "needs Linux 5.9",
	} {
		if c := kernelCheck(release); !strings.Contains(c.Means, want) || (c.State == stateOK) != (want == "") {
			t.Errorf("%s: %+v", release, c)
		}
	}
}
