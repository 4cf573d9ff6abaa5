package handoff

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dial connects to the public address of an endpoint in the way that its
// program takes for a probe: with an odd hop limit from a local address. While a
// plan has probe listeners, the connection goes to them and to nobody else's
// (where the endpoint is shared, to any generation). At a wildcard it avoids the
// addresses that others names, which are endpoints of their own. It may be called
// by any goroutine; the caller owns the connection.
func Dial(ctx context.Context, at netip.AddrPort, others ...netip.AddrPort) (net.Conn, error) {
	to, err := reachable(at, others)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Control: markProbe}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, fmt.Errorf("can't connect to %s: %w", at, err)
	}
	return c, nil
}

// reachable is an address at which a client of this machine reaches a wildcard,
// and not one of the others at the same port; all of 127/8 is this machine.
func reachable(at netip.AddrPort, others []netip.AddrPort) (netip.AddrPort, error) {
	local := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.AddrFrom4([4]byte{127, 66, 71, 80})}
	switch at.Addr() {
	case netip.IPv4Unspecified():
	case netip.IPv6Unspecified():
		local = append([]netip.Addr{netip.IPv6Loopback()}, local...)
	default:
		return at, nil
	}
	for _, a := range local {
		if to := netip.AddrPortFrom(a, at.Port()); !slices.Contains(others, to) {
			return to, nil
		}
	}
	return at, fmt.Errorf("can't probe %s: every local address at its port is an endpoint of its own", at)
}

func markProbe(network, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		if network == "tcp4" {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, probeHopLimit)
			return
		}
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, probeHopLimit)
	})
	if err != nil {
		return err
	}
	return failed
}

// probeHopLimit marks a probe: no system sends it by default, and together with
// a local source address, which no packet from outside can have (RFC 1122
// 3.2.1.3), no client on another machine can have it.
const probeHopLimit = 77

// IsProbe tells whether a connection that was accepted was made by [Dial]: the hop limit
// of its first packet is kept where that of multicast stands on other sockets
// (tcp_v4_syn_recv_sock in net/ipv4/tcp_ipv4.c, mc_ttl; mcast_hops for IPv6).
func IsProbe(fd int) bool {
	four, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL)
	if err == nil && four == probeHopLimit {
		return isLocal(fd)
	}
	six, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS)
	return err == nil && six == probeHopLimit && isLocal(fd)
}

// isLocal: no client on another machine is one.
func isLocal(fd int) bool {
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return false
	}
	own, err := boundTo(fd)
	if err != nil {
		return false
	}
	var from netip.Addr
	switch sa := peer.(type) {
	case *unix.SockaddrInet4:
		from = netip.AddrFrom4(sa.Addr)
	case *unix.SockaddrInet6:
		from = netip.AddrFrom16(sa.Addr).Unmap()
	}
	return from.IsLoopback() || from == own.Addr().Unmap()
}
