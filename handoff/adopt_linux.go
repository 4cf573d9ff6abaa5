package handoff

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// parked is the inherited socket if no generation has it. It stays a member for good,
// though the program may not name it. Generations that follow the first get listeners
// of their own, since only those can settle before the daemon is told to stop for good.
func (g *group) parked() (*Listener, error) {
	l := g.ours
	if l == nil {
		return nil, nil
	}
	if err := g.look(); err != nil || !l.parked || !l.member || l.unsure {
		return nil, err
	}
	l.parked = false
	if len(g.ep.plan.Live) == 0 { // the program in force may name another
		return l, g.attachPlan(Plan{Live: []*Listener{l}})
	}
	return l, nil
}

// adopt makes a group of the inherited socket, which is in none: it was listening
// before it had SO_REUSEPORT, and such a one gets its place when a second member
// joins, and can be given a program only then (reuseport_attach_prog in
// net/core/sock_reuseport.c). Between the two the kernel spreads over both. So the
// second is a door without a handle: its socket filter drops every packet, and a SYN
// that meets it is sent again a second later, when the program is in force. Then it
// leaves; the group and its program stay.
func (g *group) adopt() (*Listener, error) {
	in := g.ep.inherited
	if in.mptcp {
		return nil, &unsteerableError{errors.New("it speaks MPTCP, and such a socket takes no steering program; with systemd, leave SocketProtocol= out")}
	}
	if err := in.set(g.ep.spec.Options); err != nil {
		return nil, err
	}
	l := &Listener{ep: g.ep, fd: in.fd, inode: in.inode, inherited: true, member: true}
	if err := g.found(l); err != nil {
		return nil, &unsteerableError{errors.Join(err, g.kernel.restore(in))}
	}
	g.ours, g.array, g.changed = l, array{l}, true
	return l, nil
}

func (g *group) found(l *Listener) error {
	if err := g.kernel.admit(l.fd); err != nil {
		return err
	}
	alone := indices{live: []uint32{0}}
	if g.kernel.attach(l.fd, alone) == nil {
		return nil // it has been in a group before
	}
	door, err := g.kernel.bind(g.ep)
	if err != nil {
		return g.ep.inherited.explain(err)
	}
	defer unix.Close(door)
	if err := g.kernel.deafen(door); err != nil {
		return err
	}
	if err := g.kernel.listen(door, 1); err != nil {
		return g.ep.inherited.explain(err)
	}
	err = g.kernel.attach(l.fd, alone)
	_ = g.kernel.hide(door)
	g.kernel.shutdown(door)
	return err
}

// explain why no socket of ours can be bound beside it.
func (in *Inherited) explain(err error) error {
	inUse, other := errors.Is(err, unix.EADDRINUSE), in.uid != uint32(os.Geteuid())
	switch {
	case other && (inUse || errors.Is(err, unix.EPERM)):
		return fmt.Errorf("uid %d made it, and this process is uid %d; run gapless as uid %d, and the daemon as another with --user", in.uid, os.Geteuid(), in.uid)
	case !inUse:
		return err
	}
	return fmt.Errorf("connections that it had accepted before do not let the address be used twice; it is as it should be at the next start without any: %w", err)
}

// park is what Close does with an inherited one. Whoever has it too wants it to
// listen, whatever the daemon did to it.
func (g *group) park(l *Listener) error {
	if err := g.look(); err != nil {
		return err
	}
	g.ep.plan = g.ep.plan.without(l)
	l.loose = false
	if !l.member {
		if err := g.relisten(l); err != nil {
			return err
		}
	}
	l.parked = true
	return g.collectPads()
}

// rejoin is relisten for the inherited one, whose daemon may do it again. Until pads
// stand behind it, each that leaves may move it.
func (g *group) rejoin(l *Listener) error {
	if err := g.look(); err != nil {
		return err
	}
	before := g.departed
	g.left = drop(g.left, l)
	l.unsure = true
	if err := g.listen(l); err != nil {
		return err
	}
	l.unsure = false
	if err := errors.Join(g.pad(), g.look()); err != nil {
		return err
	}
	l.unsure = g.departed != before && len(g.array) > 1
	return g.attachPlan(g.ep.plan)
}

// inherited is that socket, listening; nil where the program can't name it, since its
// place is not known: it had been shut down, and several left before it listened again.
func (g *group) inherited() (*Listener, error) {
	if err := g.look(); err != nil || g.ours == nil {
		return nil, err
	}
	if err := g.relisten(g.ours); err != nil || g.ours.unsure {
		return nil, err
	}
	return g.ours, nil
}

// restore takes all others out, and leaves the inherited one, which has the traffic,
// as it came. It may be moved by that, if its daemon had shut it down once; so the
// others are made deaf, and a SYN that goes astray is sent again.
func (g *group) restore() error {
	if g.ours == nil {
		return nil
	}
	var errs []error
	for _, l := range g.members() {
		if l.member || l.closed || l == g.ours {
			continue
		}
		g.kernel.shutdown(l.fd)
		errs = append(errs, l.closeFD())
	}
	for _, l := range slices.Clone(g.array) {
		if l != g.ours {
			errs = append(errs, g.kernel.deafen(l.fd))
		}
	}
	for _, l := range slices.Backward(slices.Clone(g.array)) {
		if l == g.ours {
			continue
		}
		errs = append(errs, g.takeOut(l), l.closeFD())
	}
	g.ours.closed = true
	return errors.Join(append(errs, g.kernel.restore(g.ep.inherited))...)
}

func (linux) admit(fd int) error {
	err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	if err != nil {
		return fmt.Errorf("can't let others listen beside it: %w", err)
	}
	return nil
}

// restore: with SO_REUSEPORT left on, any process of the socket's user could listen
// beside whoever uses it next.
func (linux) restore(in *Inherited) error {
	_ = unix.SetsockoptInt(in.fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0) // ENOENT: it had none
	return unix.SetsockoptInt(in.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, in.reusePort)
}

// deafen lets no packet reach a socket (socket(7), SO_ATTACH_FILTER).
func (linux) deafen(fd int) error {
	none := []unix.SockFilter{ret(0)}
	prog := unix.SockFprog{Len: 1, Filter: &none[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("can't attach a filter: %w", err)
	}
	return nil
}
