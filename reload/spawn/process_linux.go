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

// Process is a started daemon with its process group. Its methods may be called by
// any goroutine.
type Process struct {
	program *Program
	pid     int
	pidfd   *os.File
	lister  *conns.Lister // the watcher's, so that it can look whatever else is open

	mu     sync.Mutex // guards reaped: no signal may follow the reaping
	reaped bool

	exited chan struct{}
	exit   Exit // valid once exited is closed
	gone   chan struct{}
}

// follow takes ownership of pidfd.
func follow(pid, pidfd int) (*Process, error) {
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
	p := &Process{pid: pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), lister: lister, exited: make(chan struct{}), gone: make(chan struct{})}
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

// SignalGroup sends one to every process of the group.
func (p *Process) SignalGroup(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	if err := unix.Kill(-p.pid, s); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("can't signal process group %d: %w", p.pid, err)
	}
	return nil
}

// Members are the processes of the group that run.
func (p *Process) Members() ([]int, error) { return conns.Group(p.pid) }

func (p *Process) watch() {
	p.exit = p.waitExit()
	close(p.exited)
	p.waitGroup()
	p.reap()
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

// waitGroup returns when no process of the group runs any more. The kernel has no
// event for that, so it looks, seldom; whoever wants it to end sends signals. That
// nobody can look is no reason to wait for ever.
func (p *Process) waitGroup() {
	defer p.lister.Close()
	for every := 2 * time.Millisecond; ; every = min(2*every, 250*time.Millisecond) {
		if members, err := p.lister.Group(p.pid); err != nil || len(members) == 0 {
			return
		}
		time.Sleep(every)
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
