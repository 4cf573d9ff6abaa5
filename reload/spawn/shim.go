package spawn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
)

// firstFD is where listeners begin (SD_LISTEN_FDS_START of sd_listen_fds(3)).
const firstFD = 3

// Codes that shells end with.
const (
	codeNotRunnable = 126
	codeNotFound    = 127
)

// orderLimit is more than any environment that execve takes (ARG_MAX's bounds).
const orderLimit = 16 << 20

// Shim is the child's part; see the package comment. It is called by the hidden
// sub-command, first thing in main, with the number of listeners, and does not
// return.
func Shim(args []string) {
	// A filter is a thread's, and stays only if that thread execs.
	runtime.LockOSThread()
	conn, n, err := adopt(args)
	if err != nil && conn == nil {
		// Nobody can be told but by standard error, which is the daemon's.
		fmt.Fprintln(os.Stderr, "gapless: this sub-command is for gapless itself:", err)
		os.Exit(codeNotRunnable)
	}
	var fault *ExecError
	if err != nil {
		fault = &ExecError{Reason: err.Error(), Code: codeNotRunnable}
	} else {
		fault = become(conn, n)
	}
	if body, err := json.Marshal(told{Fault: fault}); err == nil {
		handoff.Send(context.Background(), conn, handoff.Message{Body: body})
	}
	os.Exit(fault.Code)
}

// adopt takes the holder's end of the line from fd 3 and keeps the numbers that
// the listeners shall have out of the reach of the Go runtime, which opens
// descriptors of its own when the network is first used. With an error comes the
// line to the holder, if there is one to tell it through.
func adopt(args []string) (*net.UnixConn, int, error) {
	if len(args) != 1 {
		return nil, 0, fmt.Errorf("want the number of listeners")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 0 {
		return nil, 0, fmt.Errorf("%q is no number of listeners", args[0])
	}
	if full := roomFor(n); full != nil {
		conn, err := holder(firstFD)
		return conn, n, errors.Join(full, err)
	}
	line, err := unix.FcntlInt(firstFD, unix.F_DUPFD_CLOEXEC, firstFD+n)
	if err != nil {
		return nil, 0, fmt.Errorf("can't keep %d descriptors free: %w", n, err)
	}
	unix.Close(firstFD)
	if err := reserve(n); err != nil {
		return nil, 0, err
	}
	conn, err := holder(line)
	return conn, n, err
}

func holder(line int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(line), "holder")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("can't talk to the holder: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("fd 3 is not the holder's")
	}
	return conn, nil
}

// spareFDs are for the line to the holder and what the Go runtime opens.
const spareFDs = 16

// roomFor: for a moment the shim has each listener twice, as it came and in its
// place. Without room the kernel would leave some out (MSG_CTRUNC, unix(7)).
func roomFor(n int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("can't read the limit of open files: %w", err)
	}
	if need := uint64(firstFD + 2*n + spareFDs); uint64(limit.Cur) < need {
		return fmt.Errorf("%d listeners need RLIMIT_NOFILE to be %d, and it is %d", n, need, limit.Cur)
	}
	return nil
}

// reserve fills every free number below firstFD+n.
func reserve(n int) error {
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("can't keep %d descriptors free: %w", n, err)
		}
		if fd >= firstFD+n {
			return unix.Close(fd)
		}
	}
}

// become returns only if the daemon could not be run.
func become(conn *net.UnixConn, n int) *ExecError {
	m, err := handoff.Receive(context.Background(), conn, handoff.Limit{Files: n + 1, Body: orderLimit})
	if err != nil {
		return &ExecError{Reason: err.Error(), Code: codeNotRunnable}
	}
	var o Order
	if err := json.Unmarshal(m.Body, &o); err != nil {
		return &ExecError{Reason: "bad order: " + err.Error(), Code: codeNotRunnable}
	}
	program := -1
	if last := len(m.Files) - 1; last >= 0 && m.Files[last].Name == programName {
		program, m.Files = m.Files[last].FD, m.Files[:last]
	}
	if err := o.prepare(conn, m.Files); err != nil {
		return &ExecError{Command: o.Argv[0], Reason: err.Error(), Code: codeNotRunnable}
	}
	path, fault := o.find()
	if fault != nil {
		return fault
	}
	if o.Check {
		os.Exit(0)
	}
	if o.Report {
		report(conn, path)
	}
	if program >= 0 {
		// By this name, and not by execveat(2), since syscall.Exec alone gives the
		// daemon back the limit of open files that the Go runtime has raised.
		path = "/proc/self/fd/" + strconv.Itoa(program)
	}
	defaultSignals()
	err = syscall.Exec(path, o.Argv, activate(o.Env, m.Files))
	return &ExecError{Command: o.Argv[0], Reason: err.Error(), Code: codeNotRunnable}
}

// report tells the holder what will run. If it can't be told, then it knows less.
func report(conn *net.UnixConn, path string) {
	var t told
	var err error
	if t.Path, err = filepath.Abs(path); err != nil {
		return
	}
	if t.Dir, err = os.Getwd(); err != nil {
		return
	}
	body, err := json.Marshal(t)
	if err != nil {
		return
	}
	var files []handoff.File
	if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err == nil { // whatever it is
		defer unix.Close(fd)
		files = []handoff.File{{Name: programName, FD: fd}}
	}
	handoff.Send(context.Background(), conn, handoff.Message{Body: body, Files: files})
}

func (o Order) prepare(conn *net.UnixConn, listeners []handoff.File) error {
	for i, l := range listeners {
		if err := place(l.FD, firstFD+i); err != nil {
			return fmt.Errorf("can't place listener %q: %w", l.Name, err)
		}
	}
	// Whoever started the holder may have left descriptors open in it.
	if err := closeOnExecFrom(firstFD + len(listeners)); err != nil {
		return fmt.Errorf("can't close what is not the daemon's: %w", err)
	}
	if o.Bind {
		if err := offerBinds(conn); err != nil {
			return err
		}
	}
	if err := o.Credential.apply(); err != nil {
		return err
	}
	if o.Dir == "" {
		return nil
	}
	if err := os.Chdir(o.Dir); err != nil {
		return fmt.Errorf("can't change to its directory: %w", err)
	}
	return nil
}

func (c *Credential) apply() error {
	if c == nil {
		return nil
	}
	if err := syscall.Setgroups(c.Groups); err != nil {
		return fmt.Errorf("can't set its groups: %w", err)
	}
	if err := syscall.Setgid(c.GID); err != nil {
		return fmt.Errorf("can't become group %d: %w", c.GID, err)
	}
	if err := syscall.Setuid(c.UID); err != nil {
		return fmt.Errorf("can't become user %d: %w", c.UID, err)
	}
	return nil
}

// find looks the command up where and as whom it will run, in its own PATH.
func (o Order) find() (string, *ExecError) {
	if o.Path != "" {
		return o.Path, nil
	}
	os.Setenv("PATH", lookup(o.Env, "PATH"))
	path, err := exec.LookPath(o.Argv[0])
	switch {
	case err == nil || errors.Is(err, exec.ErrDot):
		return path, nil
	case errors.Is(err, exec.ErrNotFound):
		return "", &ExecError{Command: o.Argv[0], Reason: "not found in PATH", Code: codeNotFound}
	case errors.Is(err, fs.ErrNotExist):
		return "", &ExecError{Command: o.Argv[0], Reason: "no such file", Code: codeNotFound}
	case errors.Is(err, fs.ErrPermission):
		return "", &ExecError{Command: o.Argv[0], Reason: "not executable, or not for this user", Code: codeNotRunnable}
	}
	return "", &ExecError{Command: o.Argv[0], Reason: err.Error(), Code: codeNotRunnable}
}

func lookup(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// lastOfEach leaves one entry a name: of two, getenv(3) takes the first, and the
// last is what was meant.
func lastOfEach(env []string) []string {
	var kept []string
	seen := map[string]bool{}
	for _, kv := range slices.Backward(env) {
		name, _, _ := strings.Cut(kv, "=")
		if !seen[name] {
			kept = append(kept, kv)
		}
		seen[name] = true
	}
	slices.Reverse(kept)
	return kept
}

// activate tells of the listeners, and of no others that env may tell of. systemd.exec(5)
// has no LISTEN_FDS=0 either: some daemons look only whether there is one.
func activate(env []string, listeners []handoff.File) []string {
	env = slices.DeleteFunc(lastOfEach(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains([]string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"}, name)
	})
	if len(listeners) == 0 {
		return env
	}
	return append(env, activation(listeners)...)
}

// activation are the variables of sd_listen_fds(3).
func activation(listeners []handoff.File) []string {
	names := make([]string, len(listeners))
	for i, l := range listeners {
		names[i] = l.Name
	}
	pid := os.Getpid()
	env := []string{
		"LISTEN_FDS=" + strconv.Itoa(len(listeners)),
		"LISTEN_PID=" + strconv.Itoa(pid),
		"LISTEN_FDNAMES=" + strings.Join(names, ":"),
	}
	if id, ok := pidfdID(pid); ok {
		env = append(env, "LISTEN_PIDFDID="+strconv.FormatUint(id, 10))
	}
	return env
}

// SetListenPID is what `gapless listen-pid` does: for the process that calls it,
// put LISTEN_PID (and LISTEN_PIDFDID where it is set) right in env.
func SetListenPID(env []string) []string {
	if lookup(env, "LISTEN_FDS") == "" {
		return env
	}
	pid := os.Getpid()
	kept := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		return strings.HasPrefix(kv, "LISTEN_PID=") || strings.HasPrefix(kv, "LISTEN_PIDFDID=")
	})
	kept = append(kept, "LISTEN_PID="+strconv.Itoa(pid))
	if id, ok := pidfdID(pid); ok {
		kept = append(kept, "LISTEN_PIDFDID="+strconv.FormatUint(id, 10))
	}
	return kept
}
