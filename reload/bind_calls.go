package reload

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/bind"
)

// serveBinds answers what g's processes ask for, one after the other, until the last of
// them has ended. It is a goroutine beside the owner; what is decided, the owner decides.
func (s *Service) serveBinds(g *generation, w *bind.Watch) {
	defer w.Close()
	for {
		c, err := w.Next(g.ctx)
		if err != nil {
			if g.ctx.Err() == nil && !errors.Is(err, io.EOF) {
				s.post(func() { s.report("bind.failed", g.number, err) })
			}
			return
		}
		if err := s.takeCall(g, c); err != nil {
			s.post(func() { s.report("bind.failed", g.number, err) })
		}
	}
}

// takeCall answers one. What is none of ours goes on untouched.
func (s *Service) takeCall(g *generation, c *bind.Call) error {
	if c.Op == bind.Bind && c.Unread == nil && c.Addr.Port() == 0 { // no IP address, or whatever port is free
		return c.Continue()
	}
	sock, err := c.Socket()
	switch {
	case errors.Is(err, bind.ErrNoAccess):
		return s.takeUnseen(g, c, err)
	case err != nil: // it has gone, or asks with no socket at all, which the kernel will tell it
		return c.Continue()
	}
	defer sock.Close()
	if same, err := c.SameNetns(sock); !sock.IsTCP() || err != nil || !same {
		return c.Continue()
	}
	if c.Op == bind.Listen {
		return s.takeListen(g, c, sock)
	}
	if c.Unread != nil {
		return c.Continue()
	}
	return s.takeBind(g, c, sock)
}

// takeBind binds the daemon's socket in its stead, or puts a listener in its place. To find
// out what it has open takes the longer the more that is, and its thread waits: so that is
// done only where the answer depends on it.
func (s *Service) takeBind(g *generation, c *bind.Call, sock *bind.Socket) error {
	ours, replaced := false, false
	if err := s.ask(g.ctx, func() { ours, replaced = s.foresee(g, c, sock) }); err != nil || !ours {
		return c.Continue()
	}
	gone := s.closedSockets(g)
	epoll := !replaced || inEpoll(c, sock)
	answer, keep := unix.Errno(0), (*place)(nil)
	asked := s.ask(g.ctx, func() {
		s.shed(g, gone)
		answer, keep = s.judge(g, c, sock, epoll)
	})
	switch {
	case asked != nil || keep == nil && answer == errNotOurs:
		return c.Continue()
	case keep == nil && answer == errClash:
		return s.bindAgain(g, c, sock)
	case keep == nil:
		return c.Answer(answer)
	}
	return s.keepSocket(g, c, sock, *keep)
}

// inEpoll: that can't be had in its place, so what can't be seen is believed to be so.
func inEpoll(c *bind.Call, sock *bind.Socket) bool {
	registered, err := bind.InEpoll(c.PID, sock.Inode, c.FD)
	return registered || err != nil
}

// keepSocket binds the daemon's own socket, or a plain one in the place of one that takes no
// steering program.
func (s *Service) keepSocket(g *generation, c *bind.Call, sock *bind.Socket, p place) error {
	if sock.IsMPTCP() {
		plain, err := s.plain(c, sock)
		if err != nil {
			return errors.Join(err, c.Continue())
		}
		defer plain.Close()
		plain.ReusePort = sock.ReusePort
		sock = plain
	}
	alone := !sock.ReusePort
	fd, err := unix.FcntlInt(uintptr(sock.FD), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return errors.Join(fmt.Errorf("can't duplicate a daemon's socket: %w", err), c.Answer(unix.ENOBUFS))
	}
	if p.key.V6Only && !sock.V6Only {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if errno := sock.Bind(p.key.Addr); errno != 0 {
		unix.Close(fd)
		return c.Answer(errno)
	}
	if err := s.ask(g.ctx, func() {
		g.bind(sock.Inode, boundSocket{fd, p}, alone)
	}); err != nil {
		unix.Close(fd)
	}
	return c.Answer(0)
}

func (s *Service) plain(c *bind.Call, sock *bind.Socket) (*bind.Socket, error) {
	fd, err := sock.Plain()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := c.Replace(fd, sock); err != nil {
		return nil, err
	}
	return c.Socket()
}

// takeListen lets the socket join its endpoint.
func (s *Service) takeListen(g *generation, c *bind.Call, sock *bind.Socket) error {
	at, err := sock.Addr()
	if err != nil {
		return errors.Join(err, c.Continue())
	}
	answer, ours := unix.Errno(0), false
	if s.ask(g.ctx, func() {
		if answer, ours = s.listens(g, sock.Inode); !ours {
			s.listensElsewhere(g, at)
		}
	}) != nil || !ours {
		return c.Continue()
	}
	s.watchWorker(g, c.PID)
	return c.Answer(answer)
}

// watchBinds begins to serve what g binds, if that is seen.
func (s *Service) watchBinds(g *generation) {
	note, level := g.proc.BindNote(), levelWarn
	if w := g.proc.BindWatch(); w != nil {
		level = levelInfo
		s.wg.Go(func() { s.serveBinds(g, w) })
	} else if s.cfg.Delivery == DeliveryBind {
		s.fail(g, CodeFailed, "can't be served by bind: "+note)
		return
	}
	if note == "" || s.bindNoted {
		return
	}
	s.bindNoted = true
	s.emit(event{kind: "bind.note", level: level, generation: g.number, text: s.cfg.Name + ": " + note})
}
