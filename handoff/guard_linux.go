package handoff

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Guard notices listeners that a daemon has shut down. It asks epoll for nothing,
// so that only EPOLLHUP is reported (epoll_ctl(2)): a connection wakes nobody.
// One goroutine may call Wait; add and remove come from the endpoint's owner.
type Guard struct {
	epoll *os.File
}

// NewGuard makes a guard; Close ends it.
func NewGuard() (*Guard, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("can't watch listeners: %w", err)
	}
	// In non-blocking mode the runtime's own poller waits for the epoll
	// descriptor, so that no thread sleeps in epoll_wait for the guard.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("can't watch listeners: %w", err)
	}
	return &Guard{epoll: os.NewFile(uintptr(fd), "listener guard")}, nil
}

// Close ends a Wait that is under way.
func (g *Guard) Close() error { return g.epoll.Close() }

// Wait blocks until listeners have been shut down and returns their inodes, each
// once until it listens again. Cancel it with Close: it then returns os.ErrClosed.
func (g *Guard) Wait(ctx context.Context) ([]uint64, error) {
	stop := context.AfterFunc(ctx, func() { g.Close() })
	defer stop()
	raw, err := g.epoll.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("can't watch listeners: %w", err)
	}
	var inodes []uint64
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		inodes, failed = shutDown(int(fd))
		return failed != nil || len(inodes) > 0
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("can't watch listeners: %w", err)
	}
	return inodes, nil
}

func shutDown(epoll int) ([]uint64, error) {
	events := make([]unix.EpollEvent, 64)
	n, err := unix.EpollWait(epoll, events, 0)
	if errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var inodes []uint64
	for _, e := range events[:n] {
		inodes = append(inodes, uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32)
	}
	return inodes, nil
}

func (g *Guard) add(l *Listener) error {
	err := g.control(unix.EPOLL_CTL_ADD, l)
	if errors.Is(err, unix.EEXIST) {
		err = g.control(unix.EPOLL_CTL_MOD, l)
	}
	if err != nil {
		return fmt.Errorf("can't watch %s: %w", l, err)
	}
	return nil
}

// remove must come before the descriptor is closed: with a duplicate in a daemon
// the kernel would keep the registration, and nobody could take it back.
func (g *Guard) remove(l *Listener) { _ = g.control(unix.EPOLL_CTL_DEL, l) }

func (g *Guard) control(op int, l *Listener) error {
	raw, err := g.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	event := unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: int32(uint32(l.inode)), Pad: int32(uint32(l.inode >> 32))}
	err = raw.Control(func(fd uintptr) { failed = unix.EpollCtl(int(fd), op, l.fd, &event) })
	return errors.Join(err, failed)
}
