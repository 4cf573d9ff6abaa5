package spawn

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// parent is a daemon: each argument is a way to have a child, and the last is what the
// child is. Who comes last says its pid.
//
//	fork    a child, and wait for it
//	stay    a child, and stay when it has ended
//	group   one in a process group of its own, and wait for it
//	setsid  one in a session of its own, and wait for it
//	leave   one in a session of its own, and end
//	told    a child in its own session, at SIGUSR1, and end
//	idle    stay
//	deaf    ignore SIGTERM, and stay
//	blank   overwrite the environment, ignore SIGTERM, and stay
func parent(ways []string) int {
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	switch way := ways[0]; way {
	case "blank":
		if err := overwriteEnvironment(); err != nil {
			fmt.Println(err)
			return 1
		}
		fallthrough
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		fallthrough
	case "idle":
		fmt.Println(os.Getpid())
		<-make(chan int)
	case "told":
		fmt.Println(os.Getpid())
		<-usr1
		return child(ways[1:], syscall.SysProcAttr{}, false)
	case "fork":
		return child(ways[1:], syscall.SysProcAttr{}, true)
	case "stay":
		child(ways[1:], syscall.SysProcAttr{}, true)
		<-make(chan int)
	case "group":
		return child(ways[1:], syscall.SysProcAttr{Setpgid: true}, true)
	default:
		return child(ways[1:], syscall.SysProcAttr{Setsid: true}, way != "leave")
	}
	return 0
}

func child(ways []string, attr syscall.SysProcAttr, wait bool) int {
	cmd := exec.Command("/proc/self/exe", append([]string{"__parent"}, ways...)...)
	cmd.Stdout = os.Stdout
	cmd.SysProcAttr = &attr
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	if wait {
		cmd.Wait()
	}
	return 0
}

// overwriteEnvironment as setproctitle does; where it begins and ends are fields 50 and
// 51 of proc_pid_stat(5).
func overwriteEnvironment() error {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	begin, _ := strconv.ParseInt(fields[47], 10, 64)
	end, _ := strconv.ParseInt(fields[48], 10, 64)
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	_, err = mem.WriteAt([]byte(strings.Repeat("x", int(end-begin))), begin)
	return err
}

// household is a daemon with what its ways have led to.
type household struct {
	*Process
	said *bufio.Reader
}

// last is the pid of who came last.
func (h household) last(t *testing.T) int {
	t.Helper()
	line, err := h.said.ReadString('\n')
	pid, numberErr := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || numberErr != nil {
		t.Fatalf("it said %q, %v", line, err)
	}
	return pid
}

func live(t *testing.T, ways ...string) household {
	t.Helper()
	o := options(t, append([]string{"/proc/self/exe", "__parent"}, ways...)...)
	o.Path = "/proc/self/exe"
	o.Env = append(o.Env, "GORACE=atexit_sleep_ms=0")
	return liveAs(t, o)
}

func liveAs(t *testing.T, o Options) household {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	o.Stdout = w
	p := run(t, o)
	w.Close()
	r.SetReadDeadline(time.Now().Add(20 * time.Second))
	return household{p, bufio.NewReader(r)}
}

func runs(pid int) bool {
	s := procState(pid)
	return s != "" && s != "Z" && s != "X"
}

// parentOf is 0 for one that is not there.
func parentOf(t *testing.T, pid int) int {
	t.Helper()
	all, err := readTable()
	if err != nil {
		t.Fatal(err)
	}
	return all[pid].parent
}

// kill a process for good, and wait until it has ended.
func kill(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of a process", func() bool { return !runs(pid) })
}
