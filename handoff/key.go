package handoff

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Key is what the sockets of one group have in common beside their user and network
// namespace (inet_reuseport_add_sock in net/ipv4/inet_hashtables.c). Sockets of one port
// whose keys differ are groups of their own, and the more specific one takes the traffic
// the moment it listens: an exact address before a wildcard, a device before none, IPv4
// before IPv6.
type Key struct {
	// Addr is the address of the socket: one of IPv4 that is mapped into IPv6 is left so.
	Addr netip.AddrPort
	// V6Only: no IPv4 connection comes to an IPv6 wildcard.
	V6Only bool
	// Device is the index of the interface that it is bound to; 0 for any.
	Device int
}

// Same tells whether sockets of the two keys are in one group.
func (k Key) Same(other Key) bool {
	a, b := k, other
	if a.Addr.Addr().IsUnspecified() && a.Addr.Addr().Is6() {
		return a == b
	}
	a.V6Only, b.V6Only = false, false
	return a == b
}

// Families tells which packets can come.
func (k Key) Families() (v4, v6 bool) {
	a := k.Addr.Addr()
	mapped := a.Is4() || a.Is4In6()
	return mapped || a.IsUnspecified() && !k.V6Only, !mapped
}

// Dial is the address that clients connect to.
func (k Key) Dial() netip.AddrPort { return netip.AddrPortFrom(k.Addr.Addr().Unmap(), k.Addr.Port()) }

// Key of the endpoint's sockets.
func (ep *Endpoint) Key() Key {
	switch {
	case ep.inherited != nil:
		return ep.inherited.key()
	case ep.bound != nil:
		return *ep.bound
	}
	a := ep.addr.Addr()
	return Key{Addr: ep.addr, V6Only: a.Is6() && !ep.spec.dualStack(a)}
}

// OpenAt is [Open] for an address at which the first listener may be a daemon's own
// socket, of that key. spec says how to call it and what options to add to sockets that
// are made for it.
func OpenAt(spec Spec, key Key, o OpenOptions) *Endpoint {
	ep := &Endpoint{spec: spec, addr: key.Dial(), bound: &key, options: o}
	ep.steering = newSteering(ep)
	return ep
}

// Join makes a listener of a socket that a daemon has bound to the endpoint's key and
// that does not listen yet, though the daemon has asked for it: listening begins here,
// with the endpoint's backlog. fd is a duplicate, and the endpoint's from then on, also
// with an error. Where all listeners are one socket that is none of the daemon's, it is
// [errors.ErrUnsupported].
func (ep *Endpoint) Join(fd int) (*Listener, error) {
	return ep.give(func() (*Listener, error) {
		l, err := ep.steering.join(fd)
		if err != nil {
			unix.Close(fd)
		}
		return l, err
	})
}

// Reconsider is to be called when options were set on l's socket that connections
// inherit.
func (l *Listener) Reconsider() { l.deferred = deferredBy(l.fd) }

func number(on bool) int {
	if on {
		return 1
	}
	return 0
}
