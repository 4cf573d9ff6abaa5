package reload

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
)

// meeting is the key of a socket at which both the endpoint that is named and the daemon
// that binds want to be reached, in the daemon's family: never at more addresses than
// either of them. ok is false where there are none.
func meeting(named, daemon handoff.Key, daemonFamily int) (key handoff.Key, ok bool) {
	if named.Addr.Port() != daemon.Addr.Port() || named.Device != 0 && daemon.Device != named.Device {
		return key, false
	}
	four, hasFour := common(four(named), four(daemon))
	six, hasSix := common(six(named), six(daemon))
	at := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, daemon.Addr.Port()) }
	switch {
	case daemonFamily == unix.AF_INET:
		return handoff.Key{Addr: at(four), Device: daemon.Device}, hasFour
	case hasSix: // both is only where both mean all addresses
		return handoff.Key{Addr: at(six), V6Only: !hasFour, Device: daemon.Device}, true
	case hasFour:
		return handoff.Key{Addr: at(netip.AddrFrom16(four.As16())), Device: daemon.Device}, true
	}
	return key, false
}

// four is the IPv4 address, or all, at which a socket of the key is reached; invalid
// for none.
func four(k handoff.Key) netip.Addr {
	v4, v6 := k.Families()
	switch {
	case !v4:
		return netip.Addr{}
	case v6:
		return netip.IPv4Unspecified()
	}
	return k.Addr.Addr().Unmap()
}

func six(k handoff.Key) netip.Addr {
	if _, v6 := k.Families(); !v6 {
		return netip.Addr{}
	}
	return k.Addr.Addr()
}

// common is where both are.
func common(a, b netip.Addr) (netip.Addr, bool) {
	switch {
	case !a.IsValid() || !b.IsValid():
		return netip.Addr{}, false
	case a.IsUnspecified():
		return b, true
	case b.IsUnspecified() || a == b:
		return a, true
	}
	return netip.Addr{}, false
}

// place says where a socket that a daemon binds belongs.
type place struct {
	i    int // endpoint; -1 for one that is to be found
	key  handoff.Key
	spec handoff.Spec // of one that is to be found
}

// placeOf finds the endpoint that a bind of g's is for. One that is named may be for
// two sockets, of IPv4 and IPv6: then the second is found. ok is false where the address
// is none of the service's.
func (s *Service) placeOf(g *generation, daemon handoff.Key, family int) (p place, ok bool) {
	best := -1
	for i, e := range s.eps {
		key, meets := meeting(e.named, daemon, family)
		switch {
		case e.closed, !meets, e.found && !e.Key().Same(key):
		case g.bindsElsewhere(i, key) && !e.found:
			p, ok = place{i: -1, key: key, spec: e.spec}, true
		case best >= 0 && !s.closer(i, best, key):
		default:
			best, p, ok = i, place{i: i, key: key}, true
		}
	}
	if best >= 0 {
		return place{i: best, key: p.key}, true
	}
	if ok {
		return s.again(p), true
	}
	if len(s.cfg.Specs) > 0 {
		return p, false
	}
	return s.again(place{i: -1, key: daemon, spec: specOf(daemon)}), true
}

// closer tells whether endpoint i suits the key better than the best so far.
func (s *Service) closer(i, best int, key handoff.Key) bool {
	return s.eps[i].Key().Same(key) && !s.eps[best].Key().Same(key)
}

// again: it has been found before.
func (s *Service) again(p place) place {
	for i, e := range s.eps {
		if e.found && !e.closed && e.Key().Same(p.key) {
			p.i = i
		}
	}
	return p
}

// specOf is the one that names such a socket.
func specOf(k handoff.Key) handoff.Spec {
	spec := handoff.Spec{Network: handoff.TCP, Host: k.Dial().Addr().String(), Port: k.Addr.Port()}
	if v4, v6 := k.Families(); v6 && !v4 && k.Addr.Addr().IsUnspecified() {
		spec.Network = handoff.TCP6
	}
	return spec
}
