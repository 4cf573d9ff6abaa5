package reload

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/bind"
)

// takeUnseen answers a call of a process whose sockets we may not have. What it binds
// may still be known, and then one of ours can be put in its place.
func (s *Service) takeUnseen(g *generation, c *bind.Call, why error) error {
	if c.Op == bind.Listen {
		return s.listenUnseen(g, c)
	}
	answer := errNotOurs
	asked := s.ask(g.ctx, func() { answer = s.judgeUnseen(g, c, why) })
	if asked != nil || answer == errNotOurs {
		return c.Continue()
	}
	return c.Answer(answer)
}

func (s *Service) judgeUnseen(g *generation, c *bind.Call, why error) unix.Errno {
	tcp, err := c.IsTCP()
	switch {
	case c.Unread != nil || err != nil:
		s.cantSee(g, errors.Join(why, err))
		return errNotOurs
	case !tcp:
		return errNotOurs
	}
	p, ok := s.placeOf(g, handoff.Key{Addr: c.Addr}, c.Family)
	if !ok {
		return errNotOurs
	}
	if p.i < 0 {
		s.cantSee(g, why)
		return errNotOurs
	}
	l := s.offeredTo(g, p)
	if l == nil { // it may have closed it, which can't be seen either
		l = g.givenTo(p)
	}
	if l == nil {
		s.cantSee(g, why)
		return unix.EADDRINUSE
	}
	return s.replaceSocket(g, c, nil, p, l)
}

// listenUnseen: the only sockets of its that are known are ours.
func (s *Service) listenUnseen(g *generation, c *bind.Call) error {
	inode, err := c.Inode()
	answer, ours := unix.Errno(0), false
	if err != nil || s.ask(g.ctx, func() { answer, ours = s.listens(g, inode) }) != nil || !ours {
		return c.Continue()
	}
	return c.Answer(answer)
}

// cantSee is told once.
func (s *Service) cantSee(g *generation, why error) {
	if g.unseen {
		return
	}
	g.unseen = true
	s.emit(event{kind: "bind.unseen", level: levelWarn, generation: g.number,
		text: s.cfg.Name + ": can't serve what the daemon binds by itself: " + why.Error()})
}
