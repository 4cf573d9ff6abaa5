package reload

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/bind"
	"github.com/gapless-dev/gapless/reload/state"
)

// No answers for a daemon: what it binds is none of ours, or clashes with another of its own.
const (
	errNotOurs = unix.ENOTSUP
	errClash   = unix.EBUSY
)

// foresee tells what judge will say: whether the address is one of ours, and whether the
// socket is going to be replaced unless it is in an epoll. Clients who come in between are
// served as those of one that is.
func (s *Service) foresee(g *generation, c *bind.Call, sock *bind.Socket) (ours, replaced bool) {
	p, ok := s.placeOf(g, keyOf(c, sock), sock.Family)
	return ok, ok && p.i >= 0 && s.waitFor(g, p, s.offeredTo(g, p))
}

// waitFor: clients wait for it in l, which may be nil, and may be let in at its bind.
func (s *Service) waitFor(g *generation, p place, l *handoff.Listener) bool {
	return l != nil && l.Endpoint().Key().Same(p.key) && s.waitsIn(g, p.i, l) && !s.holdsBack(l)
}

// judge decides what becomes of a bind: an answer, or that the daemon keeps its socket,
// and where that belongs.
func (s *Service) judge(g *generation, c *bind.Call, sock *bind.Socket, epoll bool) (unix.Errno, *place) {
	p, ok := s.placeOf(g, keyOf(c, sock), sock.Family)
	switch {
	case !ok:
		return errNotOurs, nil
	case s.record(g) == nil || s.record(g).Phase == state.Failed:
		return unix.EADDRINUSE, nil
	case s.clashes(g, p, sock):
		return errClash, nil
	case p.i < 0:
		return 0, &p
	}
	l := s.offeredTo(g, p)
	switch {
	case s.conflicts(g, p) && l == nil:
		return s.refuseBind(g, p), nil
	case s.conflicts(g, p), !epoll && s.waitFor(g, p, l):
		return s.replaceSocket(g, c, sock, p, l), nil
	}
	return 0, &p
}

func keyOf(c *bind.Call, sock *bind.Socket) handoff.Key {
	return handoff.Key{Addr: c.Addr, V6Only: sock.V6Only, Device: sock.Device}
}

// clashes: it has the address already, and did not want to share it, though the kernel
// would let it now.
func (s *Service) clashes(g *generation, p place, sock *bind.Socket) bool {
	for inode, b := range g.bound {
		if b.place.key.Same(p.key) && (g.alone[inode] || !sock.ReusePort) && inode != sock.Inode {
			return true
		}
	}
	for _, l := range g.listeners.at(max(p.i, 0)) {
		if p.i >= 0 && g.taken[l] && l.Endpoint().Key().Same(p.key) && (g.alone[l.Inode()] || !sock.ReusePort) {
			return true
		}
	}
	return false
}

// offeredTo is a listener of g's that may be put in the place of a socket of the key;
// nil if there is none.
func (s *Service) offeredTo(g *generation, p place) *handoff.Listener {
	for _, l := range g.listeners.at(p.i) {
		if !g.taken[l] && sameFamily(l.Endpoint().Key(), p.key) {
			return l
		}
	}
	return nil
}

func sameFamily(a, b handoff.Key) bool { return a.Addr.Addr().Is4() == b.Addr.Addr().Is4() }

// waitsIn l, which is of the key that the daemon wants: clients wait in it already, or it
// was another daemon's own and is as good as that of this one. What waits may also be our
// own probe.
func (s *Service) waitsIn(g *generation, i int, l *handoff.Listener) bool {
	waiting, _, err := l.Queue()
	probes := 0
	if g.patience != nil {
		probes = 1
	}
	return l.Own() || l.Inherited() || err != nil || s.gets(i, l) && waiting > probes
}

// conflicts: a socket of another key than live's is a group of its own, and would take
// its traffic the moment it listens, or get none at all.
func (s *Service) conflicts(g *generation, p place) bool {
	e := s.eps[p.i]
	if e.Steering() == "shared" {
		return true
	}
	live := s.liveGeneration()
	return !e.Key().Same(p.key) && live != nil && live != g && len(live.listeners.at(p.i)) > 0
}

// refuseBind: there is nothing that could be put in its place.
func (s *Service) refuseBind(g *generation, p place) unix.Errno {
	e := s.eps[p.i]
	s.fail(g, CodeNotReady, fmt.Sprintf("binds %s, and the live generation has %s: the kernel could not tell who is to be sent where; reload with --strategy replace, or stop and start it", describeKey(p.key), describeKey(e.Key())))
	return unix.EADDRINUSE
}

// describeKey for people.
func describeKey(k handoff.Key) string {
	text := k.Addr.String()
	switch v4, v6 := k.Families(); {
	case v4 && v6:
		text += " (IPv4 and IPv6)"
	case k.Addr.Addr().Is6() && k.Addr.Addr().IsUnspecified():
		text += " (IPv6 only)"
	}
	if k.Device != 0 {
		text += fmt.Sprintf(" on device %d", k.Device)
	}
	return text
}

// replaceSocket puts l in the place of the daemon's socket, with what that has set.
func (s *Service) replaceSocket(g *generation, c *bind.Call, sock *bind.Socket, p place, l *handoff.Listener) unix.Errno {
	if sock != nil {
		_ = bind.CarryOptions(sock.FD, l.FD()) // what can't be carried is no reason to refuse
		l.Reconsider()
	}
	if err := c.Replace(l.FD(), sock); err != nil {
		if !errors.Is(err, bind.ErrGone) {
			s.report("bind.failed", g.number, err)
		}
		return unix.EADDRINUSE
	}
	g.taken[l] = true
	if sock != nil && !sock.ReusePort {
		g.alone[l.Inode()] = true
	}
	s.note(g, p.i, "replace")
	return 0
}
