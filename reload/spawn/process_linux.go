package spawn

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/conns"
)

// Process is a started daemon with all its processes. Its methods may be called by
// any goroutine.
type Process struct {
	program *Program
	bound   bound
	pid     int
	pidfd   *os.File
	family  *family
	lister  *conns.Lister // the watcher's, so that it can look whatever else is open
	oom     *oomRaise     // nil if it was not raised

	mu     sync.Mutex // no signal may follow the reaping
	reaped bool
	killed killed

	exited chan struct{}
	exit   Exit // valid once exited is closed
	gone   chan struct{}
}

// follow takes ownership of pidfd and the cgroup.
func follow(pid, pidfd int, o Options, c *cgroup) (*Process, error) {
	lister, err := conns.OpenLister()
	if err != nil {
		unix.Close(pidfd)
		return nil, fmt.Errorf("can't watch process %d: %w", pid, err)
	}
	// Non-blocking, the runtime's poller waits for it and no thread does.
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		lister.Close()
		return nil, fmt.Errorf("can't watch process %d: %w", pid, err)
	}
	p := &Process{pid: pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), family: newFamily(pid, o, c), lister: lister, exited: make(chan struct{}), gone: make(chan struct{})}
	if !o.GroupOnly {
		p.oom = raiseOOM(pid, o.RaiseOOM)
	}
	go p.watch()
	return p, nil
}

// Signal sends one to the main process; one that has ended is no error.
func (p *Process) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("can't signal process %d: %w", p.pid, err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.PidfdSendSignal(int(fd), s, nil, 0) })
	if err = errors.Join(err, failed); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("can't signal process %d: %w", p.pid, err)
	}
	return nil
}

func (p *Process) watch() {
	p.exit = p.waitExit()
	close(p.exited)
	p.waitOthers()
	p.reap()
	p.family.cgroup.remove()
	close(p.gone)
}

// waitExit leaves the process unreaped (waitid(2), WNOWAIT).
func (p *Process) waitExit() Exit {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return Exit{Code: 1}
	}
	var exit Exit
	err = raw.Read(func(fd uintptr) bool {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PIDFD, int(fd), &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) || err == nil && info.Signo == 0 {
			return false
		}
		exit = exitOf(&info)
		return true
	})
	if err != nil {
		return Exit{Code: 1}
	}
	return exit
}

// exitOf reads si_code and si_status (sigaction(2); behind si_pid and si_uid in
// the union, which begins at offset 16 on 64-bit systems).
func exitOf(info *unix.Siginfo) Exit {
	const cldExited, cldDumped = 1, 3
	status := *(*int32)(unsafe.Add(unsafe.Pointer(info), 24))
	if info.Code == cldExited {
		return Exit{Code: int(status)}
	}
	return Exit{Code: 128 + int(status), Signal: syscall.Signal(status), Dumped: info.Code == cldDumped}
}

// waitOthers returns when no process of the generation runs any more. The kernel has
// no event for that where there is no cgroup, so it looks, seldom; whoever wants it to
// end sends signals. For want of a descriptor only the group can be seen; that nobody
// can look at all is no reason to wait for ever.
func (p *Process) waitOthers() {
	defer p.lister.Close()
	nobody := 0
	for every := 2 * time.Millisecond; nobody < 2; {
		found, err := p.family.find()
		if err == nil && len(found) == 0 || err != nil && p.groupEnded() {
			nobody++
			continue
		}
		if err == nil {
			p.killMore(found)
		}
		nobody = 0
		time.Sleep(every)
		every = min(2*every, 250*time.Millisecond)
	}
}

func (p *Process) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaped = true
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(p.pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.pidfd.Close()
}

// pidfdAttr makes the child's pidfd come with the fork.
func pidfdAttr(attr *syscall.SysProcAttr) *int {
	fd := -1
	attr.PidFD = &fd
	return &fd
}

// groupEnded needs no descriptor.
func (p *Process) groupEnded() bool {
	members, err := p.lister.Group(p.pid)
	return err != nil || len(members) == 0
}
