package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// stat is what /proc/PID/stat says of a process (proc_pid_stat(5)).
type stat struct {
	pid     int
	name    string
	state   byte
	parent  int
	group   int
	session int
	start   uint64 // in clock ticks since boot: with the pid it names a process for good
}

// ended: it runs no more, and is there only until it is reaped.
func (s stat) ended() bool { return s.state == 'Z' || s.state == 'X' }

// table is the processes of a moment, by pid. It is read from their stat files, since
// not every kernel lists a process's children (CONFIG_PROC_CHILDREN).
type table map[int]stat

// readTable fails only if there is no looking: for want of /proc or of a descriptor. A
// process that ends meanwhile is left out.
func readTable() (table, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("can't list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("can't list processes: %w", err)
	}
	t := make(table, len(names))
	buffer := make([]byte, 1024) // of numbers, and a name of at most 64 bytes
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		n, err := readSmall("/proc/"+name+"/stat", buffer)
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return nil, fmt.Errorf("can't list processes: %w", err)
		}
		if s, ok := parseStat(buffer[:n]); ok && s.pid == pid {
			t[pid] = s
		}
	}
	return t, nil
}

// readSmall reads a file of /proc by three system calls, where os.ReadFile takes six.
func readSmall(path string, into []byte) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, into)
	return max(n, 0), err
}

// parseStat reads "pid (name) state ppid pgrp session …". The name may hold anything,
// so the fields behind it are counted from the last parenthesis.
func parseStat(b []byte) (stat, bool) {
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || shut < open {
		return stat{}, false
	}
	fields := bytes.Fields(b[shut+1:])
	if len(fields) < 20 {
		return stat{}, false
	}
	s := stat{name: string(b[open+1 : shut]), state: fields[0][0]}
	var errs [5]error
	s.pid, errs[0] = strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	s.parent, errs[1] = strconv.Atoi(string(fields[1]))
	s.group, errs[2] = strconv.Atoi(string(fields[2]))
	s.session, errs[3] = strconv.Atoi(string(fields[3]))
	s.start, errs[4] = strconv.ParseUint(string(fields[19]), 10, 64)
	return s, errors.Join(errs[:]...) == nil
}

// hasMark tells whether an entry is in the environment that a process was exec'd with,
// or forked with. One that another user's process does not let be read is not.
func hasMark(pid int, mark string) bool {
	if mark == "" {
		return false
	}
	for range execMost {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if err != nil {
			return false
		}
		if len(b) > 0 || !inExec(pid) {
			return bytes.Contains(slices.Concat([]byte{0}, b, []byte{0}), []byte("\x00"+mark+"\x00"))
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// execMost is more milliseconds than an execve(2) nearly always takes to fill its memory.
const execMost = 100

// inExec: it has a new memory, and no environment in it yet (env_end, field 51).
func inExec(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	return len(fields) > 48 && fields[0][0] != 'Z' && string(fields[48]) == "0"
}

// handle opens a process so that what is done by it is done to that process, and not to
// one that got its pid later: pidfd_send_signal(2) takes a directory of /proc as well.
// Unlike a pidfd it is no sign for the [Reaper] that somebody waits for the process.
func handle(s stat) (int, error) {
	dir := "/proc/" + strconv.Itoa(s.pid)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	buffer := make([]byte, 1024)
	n, err := readSmallAt(fd, "stat", buffer)
	if now, ok := parseStat(buffer[:n]); err != nil || !ok || now.start != s.start {
		unix.Close(fd)
		return -1, errors.Join(unix.ESRCH, err)
	}
	return fd, nil
}

func readSmallAt(dir int, name string, into []byte) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, into)
	return max(n, 0), err
}

// signalOne sends one to just that process; one that has ended is no error.
func signalOne(s stat, sig unix.Signal) error {
	fd, err := handle(s)
	if err == nil {
		defer unix.Close(fd)
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	if err == nil || errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("can't signal process %d (%s): %w", s.pid, s.name, err)
}
