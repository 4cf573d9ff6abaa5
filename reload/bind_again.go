package reload

import (
	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/bind"
)

// A daemon may close what it has bound and bind it again: to see whether the address is
// free, or as it is written that way. Its own socket is gone then. A listener of ours that
// was put in its place is not, as it was offered to it as well, which it has left open.

// bindAgain answers for a socket whose address the daemon has already.
func (s *Service) bindAgain(g *generation, c *bind.Call, sock *bind.Socket) error {
	var l *handoff.Listener
	var proc process
	p, answer := place{}, unix.EADDRINUSE
	asked := s.ask(g.ctx, func() {
		p, _ = s.placeOf(g, keyOf(c, sock), sock.Family)
		l, proc = g.givenTo(p), g.proc
	})
	if asked == nil && l != nil && heldOnce(proc, l.Inode()) {
		s.ask(g.ctx, func() {
			if g.taken[l] {
				answer = s.replaceSocket(g, c, sock, p, l)
			}
		})
	}
	return c.Answer(answer)
}

// givenTo is the listener of ours that is all that g has at the place; nil if there is
// another, or none.
func (g *generation) givenTo(p place) *handoff.Listener {
	for _, b := range g.bound {
		if b.place.key.Same(p.key) {
			return nil
		}
	}
	var given *handoff.Listener
	for _, l := range g.listeners.at(max(p.i, 0)) {
		switch {
		case p.i < 0, !g.taken[l], !l.Endpoint().Key().Same(p.key):
		case given != nil, l.Own():
			return nil
		default:
			given = l
		}
	}
	return given
}
