package handoff

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// sockopt is one that accepted connections inherit from their listener, or that
// decides what the listener gets, as systemd.socket(5) can set it.
type sockopt struct{ level, name int }

func carried(six bool) []sockopt {
	all := []sockopt{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.SOL_SOCKET, unix.SO_MARK},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
		{unix.IPPROTO_TCP, unix.TCP_FASTOPEN}, {unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT},
		{unix.IPPROTO_IP, unix.IP_TOS}, {unix.IPPROTO_IP, unix.IP_TTL}, {unix.IPPROTO_IP, unix.IP_FREEBIND}, {unix.IPPROTO_IP, unix.IP_TRANSPARENT},
	}
	if six {
		all = append(all, sockopt{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}, sockopt{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS},
			sockopt{unix.IPPROTO_IPV6, unix.IPV6_FREEBIND}, sockopt{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT})
	}
	return append(all, sockopt{unix.SOL_SOCKET, unix.SO_PRIORITY}) // last: IP_TOS sets it too
}

// CarryOptions sets on the TCP socket to what from has of the options that connections
// inherit, its buffers, congestion control and linger time among them. It does not touch
// what says which sockets may share an address (SO_REUSEADDR, SO_REUSEPORT, IPV6_V6ONLY,
// the device), nor TCP_DEFER_ACCEPT and O_NONBLOCK. One that can't be set does not stop
// the others; the error names them all. Both stay the caller's.
func CarryOptions(from, to int) error {
	domain, err := unix.GetsockoptInt(from, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("can't read a socket's family: %w", err)
	}
	var set []error
	for _, o := range carried(domain == unix.AF_INET6) {
		set = append(set, o.carry(from, to))
	}
	return errors.Join(append(set, carryBuffer(from, to, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE), carryBuffer(from, to, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE),
		carryCongestion(from, to), carryLinger(from, to))...)
}

func (o sockopt) carry(from, to int) error {
	want, err := unix.GetsockoptInt(from, o.level, o.name)
	if err != nil {
		return nil // this kernel has no such option
	}
	if have, err := unix.GetsockoptInt(to, o.level, o.name); err == nil && have == want {
		return nil
	}
	if err := unix.SetsockoptInt(to, o.level, o.name, want); err != nil {
		return fmt.Errorf("option %d/%d of it can't be set to %d: %w", o.level, o.name, want, err)
	}
	return nil
}

// carryBuffer: the kernel doubles what it is given (socket(7)), and above a limit
// only who may administer the network gets what he asks for; others get the limit.
func carryBuffer(from, to, name, force int) error {
	want, err := unix.GetsockoptInt(from, unix.SOL_SOCKET, name)
	if err != nil {
		return nil
	}
	if have, err := unix.GetsockoptInt(to, unix.SOL_SOCKET, name); err == nil && have == want {
		return nil
	}
	if unix.SetsockoptInt(to, unix.SOL_SOCKET, force, want/2) == nil {
		return nil
	}
	return unix.SetsockoptInt(to, unix.SOL_SOCKET, name, want/2)
}

func carryCongestion(from, to int) error {
	want, err := unix.GetsockoptString(from, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if err != nil {
		return nil
	}
	if have, err := unix.GetsockoptString(to, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err == nil && have == want {
		return nil
	}
	return unix.SetsockoptString(to, unix.IPPROTO_TCP, unix.TCP_CONGESTION, want)
}

func carryLinger(from, to int) error {
	want, err := unix.GetsockoptLinger(from, unix.SOL_SOCKET, unix.SO_LINGER)
	if err != nil || want.Onoff == 0 {
		return nil
	}
	return unix.SetsockoptLinger(to, unix.SOL_SOCKET, unix.SO_LINGER, want)
}
