package wan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Side is one end of a [Link]: a network namespace with a loopback device and the wire, nothing else. Its methods may be
// called from any goroutine; after [Link.Close] they fail with os.ErrClosed. They need the privileges that [Open] needed.
type Side struct {
	end *end
}

// end is what a Side stands for; the Link owns it.
type end struct {
	ns           *netns
	tun          *os.File
	addr4, addr6 netip.Addr
}

// Addr4 is the side's IPv4 address on the wire.
func (s Side) Addr4() netip.Addr { return s.end.addr4 }

// Addr6 is the side's IPv6 address on the wire.
func (s Side) Addr6() netip.Addr { return s.end.addr6 }

// Do runs f in the calling goroutine, on a thread inside the side's namespace, and returns f's error. Sockets that f itself
// makes live in that namespace for good and may be used anywhere; goroutines that f starts are outside, and so is what
// happens in /proc/self/net and /sys (use /proc/thread-self/net; /proc/sys/net is the side's). Do holds its thread as long
// as f runs: for many sockets at once use [Side.DialContext].
//
// In the rare case that the thread can't return to its namespace, the error says so and the goroutine stays locked to it:
// it should then end.
func (s Side) Do(f func() error) error {
	return s.end.ns.do(f)
}

// DialContext connects from this side, like [net.Dialer.DialContext]: the address must be a literal IP address and port
// ("10.77.0.2:80"), since names would be looked up outside the namespace. The caller closes the connection.
func (s Side) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("can't dial %s through the link: not a literal IP address and port: %w", address, err)
	}
	d := net.Dialer{Control: s.control}
	return d.DialContext(ctx, network, address)
}

// Listen listens on this side with plain TCP, never MPTCP. The caller closes the listener.
func (s Side) Listen(ctx context.Context, network, address string) (ln net.Listener, err error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	err = s.Do(func() error {
		ln, err = lc.Listen(ctx, network, address)
		return err
	})
	return ln, err
}

// Start is cmd.Start for a child whose network is this side; the caller waits for it. The child's /sys still shows the
// devices of the namespace that this process lives in. Pdeathsig is sent when the thread that forked ends, not the
// process: threads of the Go runtime rarely do, but a goroutine that ends while locked takes its thread along.
func (s Side) Start(cmd *exec.Cmd) error {
	return s.Do(cmd.Start)
}

// control runs between socket(2) and connect(2). Only socket(2) decides the namespace, so the thread is borrowed for
// that call alone and not for the round trips of the handshake: thousands can be under way at once.
func (s Side) control(_, _ string, c syscall.RawConn) error {
	var replaced error
	err := c.Control(func(fd uintptr) { replaced = s.replace(int(fd)) })
	return errors.Join(err, replaced)
}

// replace puts a socket of the same kind, made inside the namespace, in the place of a fresh one made outside. The runtime's
// poller does not know the number yet: it learns it when connect is under way.
func (s Side) replace(fd int) error {
	inside, err := s.socketLike(fd)
	if err != nil {
		return fmt.Errorf("can't make a socket on this side of the link: %w", err)
	}
	defer unix.Close(inside)
	if err := unix.Dup3(inside, fd, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("can't use the socket on this side of the link: %w", err)
	}
	return nil
}

// socketLike makes a non-blocking socket inside with the family, type and protocol of fd. The caller closes it.
func (s Side) socketLike(fd int) (inside int, err error) {
	var kind [3]int
	for i, option := range []int{unix.SO_DOMAIN, unix.SO_TYPE, unix.SO_PROTOCOL} {
		if kind[i], err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err != nil {
			return -1, err
		}
	}
	err = s.Do(func() error {
		inside, err = unix.Socket(kind[0], kind[1]|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, kind[2])
		return err
	})
	return inside, err
}
