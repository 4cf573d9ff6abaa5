package spawn

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reaper makes the calling process the parent of all orphans among its descendants
// (PR_SET_CHILD_SUBREAPER, prctl(2); pid 1 is it anyway), and reaps those of its
// children that nobody waits for. One is enough in a process.
//
// Whoever waits for a child holds a pidfd of it: package os does, from the fork on and
// until it has reaped it, and a [Process] too. So a child that this process holds no
// pidfd of is nobody's.
type Reaper struct {
	caught chan os.Signal
	once   sync.Once
	wg     sync.WaitGroup
}

// NewReaper begins to reap. It sleeps until a child ends.
func NewReaper() (*Reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("can't become the parent of orphans: %w", err)
	}
	if err := usesPidfds(); err != nil {
		return nil, err
	}
	r := &Reaper{caught: make(chan os.Signal, 1)} // one that waits stands for any number
	signal.Notify(r.caught, syscall.SIGCHLD)
	r.wg.Go(func() {
		reapOrphans()
		for range r.caught {
			reapOrphans()
		}
	})
	return r, nil
}

// Close reaps who has ended until now, and stops. Orphans still come.
func (r *Reaper) Close() {
	r.once.Do(func() {
		signal.Stop(r.caught)
		close(r.caught)
	})
	r.wg.Wait()
	reapOrphans()
}

// usesPidfds: where package os can't use them (Linux before 5.4, or a seccomp filter),
// its children look like orphans.
func usesPidfds() error {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		defer self.Release()
		err = self.WithHandle(func(uintptr) {})
	}
	if err != nil {
		return fmt.Errorf("can't tell orphans from children: %w", err)
	}
	return nil
}

// reapOrphans that have ended. The kernel shows one child at a time, and always the
// same until it is reaped; where that is not ours to reap, all are looked at.
func reapOrphans() {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || info.Signo == 0 {
			return
		}
		// After the look at the child: who has reaped it held a pidfd until then.
		held, err := awaited()
		if err != nil {
			return // the next child to end is the next try
		}
		if pid := pidOf(&info); held[pid] || !reapOne(pid) {
			reapAmongAll()
			return
		}
	}
}

func reapAmongAll() {
	t, err := readTable()
	if err != nil {
		return
	}
	held, err := awaited()
	if err != nil {
		return
	}
	for pid, s := range t {
		if s.parent == os.Getpid() && s.ended() && !held[pid] {
			reapOne(pid)
		}
	}
}

func reapOne(pid int) bool {
	var status unix.WaitStatus
	got, err := unix.Wait4(pid, &status, unix.WNOHANG, nil)
	return err == nil && got == pid
}

// awaited are the pids that this process has pidfds of (Pid in /proc/PID/fdinfo/FD,
// proc_pid_fdinfo(5)).
func awaited() (map[int]bool, error) {
	entries, err := os.ReadDir("/proc/self/fdinfo")
	if err != nil {
		return nil, err
	}
	pids := map[int]bool{}
	for _, e := range entries {
		b, err := os.ReadFile("/proc/self/fdinfo/" + e.Name())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			if text, ok := strings.CutPrefix(line, "Pid:"); ok {
				pid, _ := strconv.Atoi(strings.TrimSpace(text))
				pids[pid] = true
			}
		}
	}
	return pids, nil
}

// pidOf reads si_pid (sigaction(2)), the first of the union.
func pidOf(info *unix.Siginfo) int { return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), 12+4))) }
