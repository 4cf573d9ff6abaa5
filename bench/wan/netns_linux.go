package wan

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// netns keeps one network namespace alive by an open file; the namespace has no name anywhere.
type netns struct {
	file *os.File
}

// newNetns makes an empty network namespace and leaves the caller in its own.
func newNetns() (*netns, error) {
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
	return &netns{file: os.NewFile(uintptr(fd), "network namespace")}, nil
}

// do runs f on a thread inside the namespace. After close it fails with os.ErrClosed.
func (n *netns) do(f func() error) error {
	return visit(n.enter, f)
}

func (n *netns) close() error {
	return n.file.Close()
}

// enter moves the calling thread. It borrows the fd, so that a close meanwhile can't make the number mean another file.
func (n *netns) enter() error {
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
