package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// DialContext connects from inside, like [net.Dialer.DialContext]: the address must be a literal IP address and port
// ("10.77.0.2:80"), since names would be looked up outside the namespace. The caller closes the connection.
func (n *Namespace) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("can't dial %s inside a network namespace: not a literal IP address and port: %w", address, err)
	}
	d := net.Dialer{Control: n.control}
	return d.DialContext(ctx, network, address)
}

// control runs between socket(2) and connect(2). Only socket(2) decides the namespace, so the thread is borrowed for
// that call alone and not for the round trips of the handshake: thousands can be under way at once.
func (n *Namespace) control(_, _ string, c syscall.RawConn) error {
	var replaced error
	err := c.Control(func(fd uintptr) { replaced = n.replace(int(fd)) })
	return errors.Join(err, replaced)
}

// replace puts a socket of the same kind, made inside the namespace, in the place of a fresh one made outside. The runtime's
// poller does not know the number yet: it learns it when connect is under way.
func (n *Namespace) replace(fd int) error {
	inside, err := n.socketLike(fd)
	if err != nil {
		return fmt.Errorf("can't make a socket in the network namespace: %w", err)
	}
	defer unix.Close(inside)
	if err := unix.Dup3(inside, fd, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("can't use the socket in the network namespace: %w", err)
	}
	return nil
}

// socketLike makes a non-blocking socket inside with the family, type and protocol of fd. The caller closes it.
func (n *Namespace) socketLike(fd int) (inside int, err error) {
	var kind [3]int
	for i, option := range []int{unix.SO_DOMAIN, unix.SO_TYPE, unix.SO_PROTOCOL} {
		if kind[i], err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err != nil {
			return -1, err
		}
	}
	err = n.Do(func() error {
		inside, err = unix.Socket(kind[0], kind[1]|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, kind[2])
		return err
	})
	return inside, err
}
