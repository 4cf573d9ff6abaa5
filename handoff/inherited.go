package handoff

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ErrInherited: another process keeps the socket open for good, a service manager,
// and clients shall be able to wait in it; so it can't be made to refuse them.
var ErrInherited = errors.New("its socket is another's too, who lets clients wait")

// Inherited is a listening socket that another process opened and that this one was
// given: by systemd, with LISTEN_FDS. [OpenOptions].Inherited makes it the first
// listener of an endpoint. Whoever gave it keeps it open, and uses it when this
// process has ended, so it is never shut down (shutdown(2) is for all who have it),
// and at the end it gets the endpoint's traffic again.
type Inherited struct {
	// Name as the giver calls it; "" if it did not say.
	Name string

	fd     int
	number int // as which it came
	inode  uint64
	addr   netip.AddrPort // of the socket: an IPv4 address that is mapped into IPv6 is left so
	traits
}

// Inherit looks at descriptor fd, which belongs to the result from then on; with an
// error it stays the caller's. Only listening TCP sockets can be held.
func Inherit(name string, fd int) (*Inherited, error) {
	in := &Inherited{Name: name, fd: fd, number: fd}
	if err := in.inspect(); err != nil {
		return nil, fmt.Errorf("can't take over %s: %w", in, err)
	}
	return in, nil
}

// String is "fd 3 (web)".
func (in *Inherited) String() string {
	if in.Name == "" {
		return fmt.Sprintf("fd %d", in.number)
	}
	return fmt.Sprintf("fd %d (%s)", in.number, in.Name)
}

// Addr it listens on.
func (in *Inherited) Addr() netip.AddrPort {
	return netip.AddrPortFrom(in.addr.Addr().Unmap(), in.addr.Port())
}

// Inode identifies the socket.
func (in *Inherited) Inode() uint64 { return in.inode }

// Spec is the one that would open such a socket.
func (in *Inherited) Spec() Spec {
	s := Spec{Name: in.Name, Network: TCP, Host: in.Addr().Addr().String(), Port: in.addr.Port()}
	if in.v6only && in.addr.Addr().IsUnspecified() {
		s.Network = TCP6
	}
	return s
}

// ListensAt tells whether it is what s asks for: a host name is looked up.
func (in *Inherited) ListensAt(ctx context.Context, s Spec) bool {
	if !s.Network.IsTCP() || s.Port == 0 {
		return false
	}
	at, err := resolve(ctx, s)
	if err != nil || at != in.Addr() {
		return false
	}
	return !at.Addr().IsUnspecified() || at.Addr().Is4() || s.dualStack(at.Addr()) != in.v6only
}

// Close gives up one that was not made an endpoint's.
func (in *Inherited) Close() error {
	if in.fd < 0 {
		return nil
	}
	fd := in.fd
	in.fd = -1
	return unix.Close(fd)
}

func (in *Inherited) key() Key { return Key{Addr: in.addr, V6Only: in.v6only, Device: in.device} }

// openInherited is [Open] where the socket is there already.
func openInherited(spec Spec, o OpenOptions) *Endpoint {
	in := o.Inherited
	if spec.Options.Backlog == 0 {
		spec.Options.Backlog = in.options.Backlog
	}
	if spec.Options.DeferAccept == 0 {
		spec.Options.DeferAccept = in.options.DeferAccept
	}
	ep := &Endpoint{spec: spec, addr: in.Addr(), options: o, inherited: in}
	ep.steering = newSteering(ep)
	return ep
}

// set gives it what the user wants beside what it has.
func (in *Inherited) set(o Options) error {
	if err := errors.Join(setOptions(in.fd, o)...); err != nil {
		return fmt.Errorf("can't set an option of %s: %w", in, err)
	}
	return nil
}

// unsteerableError says why no socket of our own can stand beside an inherited one.
type unsteerableError struct{ reason error }

func (e *unsteerableError) Error() string { return e.reason.Error() }
func (e *unsteerableError) Unwrap() error { return e.reason }

// share goes on with one socket for all, which needs nothing of the kernel.
func (ep *Endpoint) share(why error) {
	ep.options.Shared = true
	ep.steering = &shared{ep: ep}
	ep.warnings = append(ep.warnings, fmt.Sprintf("%s: all generations share the inherited socket, and a reload may lose what the old one is just accepting: %s", ep.Addr(), why))
}

// GiveBack steers an inherited endpoint's traffic to the socket that was inherited,
// so that clients wait in it for whoever gave it; true if this took it from another
// listener. It comes before the last generation is told to stop.
func (ep *Endpoint) GiveBack() (bool, error) {
	if ep.inherited == nil {
		return false, nil
	}
	l, err := ep.steering.inherited()
	if err != nil {
		return false, fmt.Errorf("can't give the address %s back: %w", ep.Addr(), err)
	}
	if l == nil || len(ep.plan.Live) == 1 && ep.plan.names(l) {
		return false, nil
	}
	return true, ep.Steer(Plan{Live: []*Listener{l}})
}

// closeInherited is CloseAll where the first listener is another's too.
func (ep *Endpoint) closeInherited() error {
	if ep.inherited.fd < 0 {
		return nil
	}
	for _, l := range ep.open {
		ep.unwatch(l)
	}
	_, err := ep.GiveBack()
	err = errors.Join(err, ep.steering.restore())
	ep.plan = Plan{}
	return errors.Join(err, ep.inherited.Close())
}
