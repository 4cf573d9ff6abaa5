//go:build !linux

package handoff

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

func tcpSocket(family int) (int, error) {
	// A fork between the two calls would leak the socket.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(family, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	return fd, err
}

func accept(fd int) (int, bool, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	c, _, err := unix.Accept(fd)
	if errors.Is(err, unix.EAGAIN) {
		return -1, false, nil
	}
	if err != nil {
		return -1, false, fmt.Errorf("can't accept: %w", err)
	}
	unix.CloseOnExec(c)
	return c, true, nil
}

func listen(fd, backlog int) error { return unix.Listen(fd, backlog) }

func isListening(fd int) (bool, error) {
	on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return false, fmt.Errorf("can't read a listener's state: %w", err)
	}
	return on != 0, nil
}

func queue(int) (waiting, limit int, err error) {
	return 0, 0, fmt.Errorf("can't read a listener's queue: %w", errors.ErrUnsupported)
}

func somaxconn() int { return unix.SOMAXCONN }

func deferAccept(int, int) error { return errors.ErrUnsupported }

func newSteering(ep *Endpoint) steering { return &shared{ep: ep} }

func deferredBy(int) int { return 0 }
