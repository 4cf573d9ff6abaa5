package handoff

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Errors that callers tell apart.
var (
	// ErrNotMember: the listener is not listening at this endpoint (any more).
	ErrNotMember = errors.New("it is not listening at this endpoint")
	// ErrSteered: the listener still gets connections, so it can't be closed.
	ErrSteered = errors.New("it still gets connections")
	// ErrServing: a daemon's listener keeps the address open.
	ErrServing = errors.New("a generation still listens there")
)

// OpenOptions are for [Open]; the zero value is the default.
type OpenOptions struct {
	// Shared makes all listeners of the endpoint share one socket, as on systems
	// that can't steer. Plans are then kept but have no effect.
	Shared bool
	// Inherited, if set, is the first listener; it belongs to the endpoint from then on.
	Inherited *Inherited
	// Guard, if set, is told of every listener that a daemon may shut down.
	Guard *Guard
}

// Endpoint is one address that is held open, with the listeners at it. It is
// owned by one goroutine; see the package comment.
type Endpoint struct {
	spec      Spec
	addr      netip.AddrPort
	bound     *Key // of a daemon's own socket, if that came before any of ours
	options   OpenOptions
	inherited *Inherited
	plan      Plan
	steering  steering
	open      []*Listener // that Open gave out and Close has not ended
	warnings  []string
}

// steering is what differs between systems: sockets of their own for each
// listener with the kernel choosing among them, or one socket for all.
type steering interface {
	open() (*Listener, error)
	join(fd int) (*Listener, error)
	steer(Plan) error
	loosen(*Listener) error
	refresh() ([]*Listener, error)
	relisten(*Listener) error
	close(*Listener) error
	refuse() error
	resume() error
	members() []*Listener
	kind() string
	inherited() (*Listener, error)
	parked() (*Listener, error)
	restore() error
}

// Open takes the address of spec. Nothing listens there yet: that begins with the
// first [Endpoint.Open], so an address in use shows there, as an [*InUseError]; an
// inherited socket is not touched before that either. There spec says how to call it
// and what options to add; those that it leaves open are the socket's.
func Open(ctx context.Context, spec Spec, o OpenOptions) (*Endpoint, error) {
	if !spec.Network.IsTCP() {
		return nil, fmt.Errorf("can't listen on %s: networks other than tcp are not held yet", spec)
	}
	if o.Inherited != nil {
		return openInherited(spec, o), nil
	}
	addr, err := resolve(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("can't listen on %s: %w", spec, err)
	}
	ep := &Endpoint{spec: spec, addr: addr, options: o}
	ep.steering = newSteering(ep)
	if w := backlogWarning(spec); w != "" {
		ep.warnings = append(ep.warnings, w)
	}
	return ep, nil
}

// Spec is what was asked for.
func (ep *Endpoint) Spec() Spec { return ep.spec }

// Addr is the address, with the port that was taken for port 0 once a listener
// is open.
func (ep *Endpoint) Addr() netip.AddrPort { return ep.addr }

// Warnings are things the user should know of: the kernel gives less than asked.
func (ep *Endpoint) Warnings() []string { return ep.warnings }

// Steering is how traffic is directed here: "cbpf", or "shared" where all
// listeners are one socket and plans have no effect.
func (ep *Endpoint) Steering() string { return ep.steering.kind() }

// Open makes a new listener. The first one of an endpoint gets all its traffic
// from its first packet on; a later one gets none until a plan names it.
func (ep *Endpoint) Open() (*Listener, error) {
	return ep.give(ep.steering.open)
}

// Reserve is Open for a listener in which clients are to wait: the inherited one, if
// no generation has it.
func (ep *Endpoint) Reserve() (*Listener, error) {
	return ep.give(func() (*Listener, error) {
		if l, err := ep.steering.parked(); l != nil || err != nil {
			return l, err
		}
		return ep.steering.open()
	})
}

func (ep *Endpoint) give(open func() (*Listener, error)) (*Listener, error) {
	l, err := open()
	var unsteerable *unsteerableError
	if errors.As(err, &unsteerable) {
		ep.share(err)
		l, err = ep.steering.open()
	}
	if err != nil {
		return nil, fmt.Errorf("can't listen on %s: %w", ep.spec, err)
	}
	ep.open = append(ep.open, l)
	if err := ep.watch(l); err != nil {
		return nil, errors.Join(err, ep.Close(l))
	}
	if len(ep.plan.Live) == 0 {
		ep.plan.Live = []*Listener{l}
	}
	return l, nil
}

func (ep *Endpoint) watch(l *Listener) error {
	if ep.options.Guard == nil {
		return nil
	}
	return ep.options.Guard.add(l)
}

// Plan is the one in force.
func (ep *Endpoint) Plan() Plan { return ep.plan }

// Steer puts a plan in force for every connection that begins from now on.
// Those already begun stay where they are: see [Settler]. A listener that was shut
// down has to listen again first.
func (ep *Endpoint) Steer(p Plan) error {
	if _, err := ep.Refresh(); err != nil { // also because one steers through live's
		return fmt.Errorf("can't steer %s: %w", ep.Addr(), err)
	}
	if err := p.check(func(l *Listener) bool { return l.ep == ep && l.member }); err != nil {
		return err
	}
	if err := ep.steering.steer(p); err != nil {
		return fmt.Errorf("can't steer %s: %w", ep.Addr(), err)
	}
	ep.plan = p
	return ep.deferAccept()
}

// deferAccept holds back connections without data where the spec wants that, but
// never from a listener that is probed: a probe may say nothing.
func (ep *Endpoint) deferAccept() error {
	seconds := int(ep.spec.Options.DeferAccept / time.Second)
	for _, l := range ep.plan.named() {
		now := max(seconds, l.deferred)
		if now == 0 {
			continue
		}
		if slices.Contains(ep.plan.Probe, l) {
			now = 0
		}
		if err := deferAccept(l.fd, now); err != nil {
			return fmt.Errorf("can't set defer-accept on %s: %w", l, err)
		}
	}
	return nil
}

// Loosen must be called before the daemon of l is told to stop: from then on it
// may take l out of the kernel's array at any moment, and nothing may move. No new
// connection reaches l any more; what waits in it can still be accepted.
func (ep *Endpoint) Loosen(l *Listener) error {
	if err := ep.steering.loosen(l); err != nil {
		return fmt.Errorf("can't prepare the leave of %s: %w", l, err)
	}
	return nil
}

// Refresh finds the listeners that no longer listen because a daemon shut them
// down. They are to be given to [Endpoint.Relisten] or [Endpoint.Close], and are
// found again until then.
func (ep *Endpoint) Refresh() ([]*Listener, error) { return ep.steering.refresh() }

// Relisten makes a listener that was shut down by its daemon listen again.
// Clients that were waiting in it have been reset by the kernel.
func (ep *Endpoint) Relisten(l *Listener) error {
	if err := ep.steering.relisten(l); err != nil {
		return fmt.Errorf("can't listen again with %s: %w", l, err)
	}
	return ep.watch(l)
}

// Close ends a listener: with shutdown(2), so that a stray process that still
// has it open can't accept from it either. Clients that wait in it are reset;
// take them off with [Listener.Accept] first. One that a plan names is refused
// with [ErrSteered]. An inherited one goes on to listen, and is given out again.
func (ep *Endpoint) Close(l *Listener) error {
	if l.closed {
		return nil
	}
	if ep.plan.names(l) && l.member {
		return fmt.Errorf("can't close %s: %w", l, ErrSteered)
	}
	ep.unwatch(l)
	if err := ep.steering.close(l); err != nil {
		return fmt.Errorf("can't close %s: %w", l, err)
	}
	ep.open = drop(ep.open, l)
	return nil
}

func (ep *Endpoint) unwatch(l *Listener) {
	if ep.options.Guard != nil {
		ep.options.Guard.remove(l)
	}
}

// Refuse makes the address refuse connections while staying taken. It fails with
// [ErrServing] while a daemon's listener, told to stop, is still there and can't be
// hidden (Linux before 5.7 without CAP_NET_RAW), and with [ErrInherited] where the
// socket is not ours alone.
func (ep *Endpoint) Refuse() error {
	if err := ep.steering.refuse(); err != nil {
		return fmt.Errorf("can't refuse connections at %s: %w", ep.Addr(), err)
	}
	return nil
}

// Resume ends what Refuse began, if it did.
func (ep *Endpoint) Resume() error {
	if err := ep.steering.resume(); err != nil {
		return fmt.Errorf("can't listen on %s again: %w", ep.Addr(), err)
	}
	return nil
}

// CloseAll closes every listener and gives the address up, or back to whom it was
// inherited from; a second one does nothing.
func (ep *Endpoint) CloseAll() error {
	if ep.inherited != nil {
		return ep.closeInherited()
	}
	ep.plan = Plan{}
	var errs []error
	for _, l := range slices.Concat(ep.open, ep.steering.members()) {
		if l.closed { // its number may be another's by now
			continue
		}
		ep.unwatch(l)
		shutdown(l.fd)
		errs = append(errs, l.closeFD())
	}
	return errors.Join(errs...)
}
