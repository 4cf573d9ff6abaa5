//go:build !linux

package spawn

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a started daemon with its process group. Its methods may be called by
// any goroutine.
type Process struct {
	program *Program
	bound   bound
	pid     int

	mu     sync.Mutex
	reaped bool

	exited chan struct{}
	exit   Exit
	gone   chan struct{}
}

func follow(pid, _ int, _ Options, _ *cgroup) (*Process, error) {
	p := &Process{pid: pid, exited: make(chan struct{}), gone: make(chan struct{})}
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
	return ended(unix.Kill(p.pid, s))
}

// SignalGroup sends one to every process of the group.
func (p *Process) SignalGroup(s syscall.Signal) error { return ended(unix.Kill(-p.pid, s)) }

// Kill sends SIGKILL to every process of the group.
func (p *Process) Kill() error { return p.SignalGroup(syscall.SIGKILL) }

// KillIf does nothing here: whose processes are whose can't be told.
func (p *Process) KillIf(func(pid int) bool) error { return nil }

// Killed are none: they can't be named here.
func (p *Process) Killed() []Member { return nil }

// LowerOOM does nothing here.
func (p *Process) LowerOOM() error { return nil }

func ended(err error) error {
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("can't signal: %w", err)
	}
	return nil
}

// Cgroup is 0: there are none here.
func (p *Process) Cgroup() uint64 { return 0 }

// Members are the processes of the group that run; only the main one is known here.
func (p *Process) Members() ([]int, error) { return []int{p.pid}, nil }

func (p *Process) watch() {
	proc, err := os.FindProcess(p.pid)
	if err == nil {
		p.exit = wait(proc)
	}
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	close(p.exited)
	for unix.Kill(-p.pid, 0) == nil {
		time.Sleep(50 * time.Millisecond)
	}
	close(p.gone)
}

func wait(proc *os.Process) Exit {
	state, err := proc.Wait()
	if err != nil {
		return Exit{Code: 1}
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return Exit{Code: 128 + int(status.Signal()), Signal: status.Signal(), Dumped: status.CoreDump()}
	}
	return Exit{Code: state.ExitCode()}
}

func pidfdAttr(*syscall.SysProcAttr) *int {
	fd := -1
	return &fd
}
