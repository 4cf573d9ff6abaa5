package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// dualStack tells whether a socket at a serves IPv4 too: the wildcard of plain
// "tcp" does, as with Go's net.Listen.
func (s Spec) dualStack(a netip.Addr) bool {
	return s.Network == TCP && a == netip.IPv6Unspecified()
}

// resolve turns a spec into the one address to bind. A host name with several
// addresses gives the first of IPv4, else of IPv6, as net.Listen does.
func resolve(ctx context.Context, s Spec) (netip.AddrPort, error) {
	if s.Host == "" {
		return netip.AddrPortFrom(s.wildcard(), s.Port), nil
	}
	if a, err := netip.ParseAddr(s.Host); err == nil {
		return netip.AddrPortFrom(a.Unmap(), s.Port), s.suits(a.Unmap())
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", s.Host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("can't look up %s: %w", s.Host, err)
	}
	return s.pick(found)
}

func (s Spec) pick(found []netip.Addr) (netip.AddrPort, error) {
	var six netip.Addr
	for _, a := range found {
		a = a.Unmap()
		switch {
		case s.suits(a) != nil:
		case a.Is4():
			return netip.AddrPortFrom(a, s.Port), nil
		case !six.IsValid():
			six = a
		}
	}
	if !six.IsValid() {
		return netip.AddrPort{}, fmt.Errorf("%s has no address for %s", s.Host, s.Network)
	}
	return netip.AddrPortFrom(six, s.Port), nil
}

func (s Spec) suits(a netip.Addr) error {
	if s.Network == TCP4 && !a.Is4() || s.Network == TCP6 && a.Is4() {
		return fmt.Errorf("%s is no address for %s", a, s.Network)
	}
	return nil
}

func (s Spec) wildcard() netip.Addr {
	if s.Network == TCP4 || s.Network == TCP && !hasIPv6() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// hasIPv6 is false where the kernel was booted with ipv6.disable=1.
func hasIPv6() bool {
	fd, err := tcpSocket(unix.AF_INET6)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return false
	}
	if err == nil {
		unix.Close(fd)
	}
	return true
}

func zoneID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32) // a zone that is neither makes bind fail, which says more
	return uint32(n)
}

// backlog is what listen(2) is called with: the kernel's limit unless less is
// asked for, since that is how many clients can wait while no daemon accepts.
func backlog(s Spec) int {
	if s.Options.Backlog > 0 {
		return s.Options.Backlog
	}
	return somaxconn()
}

func backlogWarning(s Spec) string {
	limit := somaxconn()
	if s.Options.Backlog <= limit {
		return ""
	}
	return fmt.Sprintf("%s: backlog=%d is more than the kernel gives, %d; raise net.core.somaxconn", s, s.Options.Backlog, limit)
}
