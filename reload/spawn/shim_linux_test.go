package spawn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// The daemon gets 0, 1, 2 and its listeners, in order, and not one descriptor more.
func TestDescriptorsAndNames(t *testing.T) {
	for _, n := range []int{0, 1, 2, 253, 254, 1100} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			o := options(t, "sleep", "600")
			o.Listeners = sockets(t, n)
			p := run(t, o)
			env := environ(t, p.PID())
			hasExactly(t, p.PID(), promised(o.Listeners))
			var names []string
			for _, l := range o.Listeners {
				names = append(names, l.Name)
			}
			want := map[string]string{
				"PATH": os.Getenv("PATH"), "LISTEN_FDS": strconv.Itoa(n), "LISTEN_PID": strconv.Itoa(p.PID()),
				"LISTEN_FDNAMES": strings.Join(names, ":"), "LISTEN_PIDFDID": pidfdInode(t, p.PID()),
				markName: env[markName],
			}
			if n == 0 { // as without any socket activation
				want = map[string]string{"PATH": os.Getenv("PATH"), markName: env[markName]}
			}
			if diff := cmp.Diff(want, env); diff != "" {
				t.Errorf("its environment (-want +got):\n%s", diff)
			}
		})
	}
}

func promised(listeners []handoff.File) map[int]string {
	all := map[int]string{0: os.DevNull, 1: os.DevNull, 2: os.DevNull}
	for i, l := range listeners {
		all[3+i], _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", l.FD))
	}
	return all
}

// hasExactly waits, for the dynamic loader has a library open when a daemon begins.
func hasExactly(t *testing.T, pid int, want map[int]string) {
	t.Helper()
	var diff string
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		if diff = cmp.Diff(want, leaktest.OpenFiles(strconv.Itoa(pid))); diff == "" {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("its descriptors (-want +got):\n%s", diff)
}

// pidfdInode is what sd_listen_fds(3) compares LISTEN_PIDFDID with.
func pidfdInode(t *testing.T, pid int) string {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var where unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Fstatfs(fd, &where), unix.Fstat(fd, &st)); err != nil {
		t.Fatal(err)
	}
	if where.Type != 0x50494446 { // PIDFS_MAGIC
		t.Skip("pidfds have no inode numbers of their own on this kernel")
	}
	return strconv.FormatUint(st.Ino, 10)
}

// Of what is set twice the last counts, for every program.
func TestEnvironmentHasNoDuplicates(t *testing.T) {
	o := options(t, "sleep", "600")
	o.Env = append(o.Env, "A=1", "LISTEN_FDS=7", "LISTEN_PID=1", "B=1", "A=2", "LISTEN_PIDFDID=1")
	o.Listeners = sockets(t, 1)
	p := run(t, o)
	environ(t, p.PID())
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"PATH=" + os.Getenv("PATH"), "B=1", "A=2", "LISTEN_FDS=1", fmt.Sprintf("LISTEN_PID=%d", p.PID()),
		"LISTEN_FDNAMES=" + o.Listeners[0].Name, "LISTEN_PIDFDID=" + pidfdInode(t, p.PID())}
	got := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	got = slices.DeleteFunc(got, func(kv string) bool { return strings.HasPrefix(kv, markName+"=") })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("its environment (-want +got):\n%s", diff)
	}
}

// What the holder has open without close-on-exec does not get through.
func TestForeignDescriptorsStayBehind(t *testing.T) {
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 300)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(high)
	o := options(t, "sleep", "600")
	o.Listeners = sockets(t, 1)
	p := run(t, o)
	environ(t, p.PID())
	hasExactly(t, p.PID(), promised(o.Listeners))
}

// The shim says so where the daemon's limit has no room for its listeners.
func TestSmallLimitOfDescriptors(t *testing.T) {
	for _, c := range []struct {
		name, first, want string
	}{
		// The holder itself has no descriptor left.
		{"holder", "3", "can't start true: can't make socket pair: too many open files"},
		// It has; the daemon has not.
		{"daemon", "1000", "can't run true: 100 listeners need RLIMIT_NOFILE to be 219, and it is 64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := &bytes.Buffer{}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			o := options(t, "/proc/self/exe", "__holder", c.first, "true")
			o.Argv[0], o.Stdout, o.Stderr = executable(t), w, w
			p := run(t, o)
			w.Close()
			out.ReadFrom(r)
			r.Close()
			<-p.Exited()
			if p.Exit().Code != 0 || !strings.Contains(out.String(), c.want) {
				t.Errorf("%s: %s", p.Exit(), out)
			}
		})
	}
}

func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// holdWithSmallLimit is a holder of 100 listeners, at numbers from first on, with
// ulimit -n 64. It prints the error of the start and fails if anything is left.
func holdWithSmallLimit(args []string) int {
	first, _ := strconv.Atoi(args[0])
	listeners, err := openSockets(100, first)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	before := leaktest.OpenFiles("self")
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}); err != nil {
		fmt.Println(err)
		return 1
	}
	_, err = Start(context.Background(), Options{
		Order: Order{Argv: args[1:], Env: os.Environ()}, Shim: []string{"/proc/self/exe", "__shim"},
		Listeners: listeners, Stdin: null, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	if err == nil {
		fmt.Println("it started")
		return 1
	}
	fmt.Println(err)
	unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64})
	if err := leaktest.Find(before, 0); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// A daemon begins with every signal at its default, whatever the holder's starter
// (nohup, a shell's background job) has ignored.
func TestIgnoredSignalsAreNotInherited(t *testing.T) {
	signal.Ignore(syscall.SIGUSR1, syscall.SIGHUP, syscall.SIGTTOU, syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGUSR1, syscall.SIGHUP, syscall.SIGTTOU, syscall.SIGPIPE)
	// Neither the C library nor package os/signal lets go of this one.
	dispose(t, 32, sigIgn)
	defer dispose(t, 32, sigDfl)
	p := run(t, options(t, "sleep", "600"))
	environ(t, p.PID())
	for _, field := range []string{"SigIgn", "SigBlk"} {
		if got := statusField(t, p.PID(), field); strings.Trim(got, "0") != "" {
			t.Errorf("%s is %s", field, got)
		}
	}
}

// sigaction(2)'s dispositions.
const (
	sigDfl = 0
	sigIgn = 1
)

func dispose(t *testing.T, signal, handler uintptr) {
	t.Helper()
	action := [8]uintptr{handler}
	if _, _, err := unix.RawSyscall6(unix.SYS_RT_SIGACTION, signal, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); err != 0 {
		t.Fatalf("sigaction of %d: %v", signal, err)
	}
}

// statusField of /proc/PID/status.
func statusField(t *testing.T, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	t.Fatalf("no %s in its status", name)
	return ""
}

func TestDirectory(t *testing.T) {
	o := options(t, "sleep", "600")
	o.Dir, _ = filepath.EvalSymlinks(t.TempDir())
	p := run(t, o)
	if got, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.PID())); got != o.Dir {
		t.Errorf("it runs in %q, %v", got, err)
	}
}

func TestOwnProcessGroup(t *testing.T) {
	p := run(t, options(t, "sleep", "600"))
	if got, err := unix.Getpgid(p.PID()); got != p.PID() {
		t.Errorf("its group is %d, %v", got, err)
	}
}

func TestCredential(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can run a daemon as somebody else")
	}
	for _, c := range []struct {
		groups []int
		want   string
	}{
		{[]int{65534, 100, 4}, "4 100 65534"},
		{nil, ""}, // not the holder's
	} {
		o := options(t, "sleep", "600")
		o.Credential = &Credential{UID: 65534, GID: 65533, Groups: c.groups}
		p := run(t, o)
		environ(t, p.PID())
		for field, want := range map[string]string{"Uid": "65534 65534 65534 65534", "Gid": "65533 65533 65533 65533", "Groups": c.want, "CapEff": "0000000000000000"} {
			if got := statusField(t, p.PID(), field); got != want {
				t.Errorf("%s is %q, want %q", field, got, want)
			}
		}
	}
}

func TestShimAlone(t *testing.T) {
	for _, args := range [][]string{{"__shim"}, {"__shim", "x"}, {"__shim", "-1"}, {"__shim", "1", "2"}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		o := options(t, append([]string{executable(t)}, args...)...)
		o.Stderr = w
		p := run(t, o)
		w.Close()
		var out bytes.Buffer
		out.ReadFrom(r)
		r.Close()
		<-p.Exited()
		if p.Exit().Code != 126 || !strings.Contains(out.String(), "this sub-command is for gapless itself") {
			t.Errorf("%q: %s: %s", args, p.Exit(), &out)
		}
	}
}

func TestSetListenPID(t *testing.T) {
	if diff := cmp.Diff([]string{"A=1"}, SetListenPID([]string{"A=1"})); diff != "" {
		t.Errorf("without listeners:\n%s", diff)
	}
	got := SetListenPID([]string{"LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_PIDFDID=7", "A=1"})
	want := []string{"LISTEN_FDS=1", "A=1", fmt.Sprintf("LISTEN_PID=%d", os.Getpid()), "LISTEN_PIDFDID=" + pidfdInode(t, os.Getpid())}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
