package handoff

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// bindSocket makes a socket for the endpoint, bound and not listening. The
// caller owns it. Port 0 is settled here, once: a socket bound to it by the
// kernel would come back on another port when it listens again after a
// shutdown, so the port found is bound a second time, by number.
func bindSocket(ep *Endpoint) (int, error) {
	fd, err := newSocket(ep)
	if err != nil || ep.addr.Port() != 0 {
		return fd, err
	}
	taken, err := boundTo(fd)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	ep.addr = netip.AddrPortFrom(ep.addr.Addr(), taken.Port())
	numbered, err := newSocket(ep)
	unix.Close(fd)
	return numbered, err
}

func newSocket(ep *Endpoint) (int, error) {
	at := ep.Key().Addr
	fd, err := tcpSocket(family(at.Addr()))
	if err != nil {
		return -1, fmt.Errorf("can't make a socket: %w", err)
	}
	if err := prepare(fd, ep); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if err := unix.Bind(fd, sockaddr(at)); err != nil {
		unix.Close(fd)
		return -1, inUse(ep, err)
	}
	return fd, nil
}

// prepare sets what must be set before bind, and the options of the spec, which
// accepted connections inherit.
func prepare(fd int, ep *Endpoint) error {
	set := []error{unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)}
	if !ep.options.Shared {
		set = append(set, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	if ep.inherited != nil {
		set = append(set, ep.inherited.prepare(fd)...)
	} else {
		set = append(set, ep.Key().set(fd)...)
	}
	set = append(set, setOptions(fd, ep.spec.Options)...)
	if err := errors.Join(set...); err != nil {
		return fmt.Errorf("can't set a socket option: %w", err)
	}
	return nil
}

func setOptions(fd int, o Options) []error {
	var set []error
	option := func(level, name, value int) { set = append(set, unix.SetsockoptInt(fd, level, name, value)) }
	if o.KeepAlive {
		option(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
	if o.NoDelay {
		option(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if o.RcvBuf > 0 {
		option(unix.SOL_SOCKET, unix.SO_RCVBUF, o.RcvBuf)
	}
	if o.SndBuf > 0 {
		option(unix.SOL_SOCKET, unix.SO_SNDBUF, o.SndBuf)
	}
	if o.LingerSet {
		l := unix.Linger{Onoff: 1, Linger: int32(o.Linger / time.Second)}
		set = append(set, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
	}
	return set
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zoneID(a.Addr().Zone())}
}

func boundTo(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("can't read a socket's address: %w", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("can't read a socket's address: it is a %T", sa)
}

// shutdown takes a listening socket out of its group at once, for every process
// that has it open. ENOTCONN says that somebody did so before, which is as good.
func shutdown(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) }
