package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace keeps a network namespace alive by an open file; it needs no name anywhere. Its methods may be called from
// any goroutine; after Close they fail with os.ErrClosed.
type Namespace struct {
	file *os.File
}

// New makes an empty network namespace and leaves the caller in its own. It needs CAP_SYS_ADMIN. The caller closes it.
func New() (*Namespace, error) {
	var fd int
	unshare := func() error {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("can't make a network namespace without CAP_SYS_ADMIN (run as root): %w", err)
		}
		if err != nil {
			return fmt.Errorf("can't make a network namespace: %w", err)
		}
		return nil
	}
	err := visit(unshare, func() (err error) {
		fd, err = openThreadNetns()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Namespace{file: os.NewFile(uintptr(fd), "network namespace")}, nil
}

// Of is the network namespace that a process lives in. The caller closes it; the process may end before.
func Of(pid int) (*Namespace, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, fmt.Errorf("can't open a network namespace: %w", err)
	}
	return &Namespace{file: f}, nil
}

// Do runs f in the calling goroutine, on a thread inside the namespace, and returns f's error. Sockets that f itself makes
// live in that namespace for good and may be used anywhere; goroutines that f starts are outside, and so is what happens
// in /proc/self/net and /sys (use /proc/thread-self/net; /proc/sys/net is the namespace's). Do holds its thread as long as
// f runs: for many sockets at once use [Namespace.DialContext].
//
// In the rare case that the thread can't return to its namespace, the error says so and the goroutine stays locked to it:
// it should then end.
func (n *Namespace) Do(f func() error) error {
	return visit(n.enter, f)
}

// Close lets the namespace go; it lasts as long as somebody lives in it.
func (n *Namespace) Close() error {
	return n.file.Close()
}

// enter moves the calling thread. It borrows the fd, so that a close meanwhile can't make the number mean another file.
func (n *Namespace) enter() error {
	raw, err := n.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("can't enter the network namespace: %w", err)
	}
	var moved error
	if raw.Control(func(fd uintptr) { moved = unix.Setns(int(fd), unix.CLONE_NEWNET) }) != nil {
		// The one way for Control to fail, under an error that only package os knows.
		moved = os.ErrClosed
	}
	if moved != nil {
		return fmt.Errorf("can't enter the network namespace: %w", moved)
	}
	return nil
}

// visit runs f on a thread that enter has moved to another namespace, and brings the thread home. A thread that can't
// come home stays locked to the calling goroutine and dies with it, so that nobody else is scheduled onto it.
func visit(enter, f func() error) (err error) {
	runtime.LockOSThread()
	home, err := openThreadNetns()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer unix.Close(home)
	if err := enter(); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, fmt.Errorf("can't return to the own network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// openThreadNetns opens the namespace of the calling thread: /proc/self would be that of the process's first thread.
func openThreadNetns() (int, error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("can't open the own network namespace: %w", err)
	}
	return fd, nil
}
