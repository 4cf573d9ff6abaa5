package handoff

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// shared lets all listeners of an endpoint be one socket, for systems where the
// kernel can't be told which of several to choose. Every generation that accepts
// gets connections, candidates included; a daemon that shuts the socket down does
// so for all, which [Endpoint.Refresh] finds and [Endpoint.Relisten] mends.
type shared struct {
	ep      *Endpoint
	first   *Listener // held even when no generation has it, so that the address stays taken
	others  []*Listener
	refused bool
}

func (s *shared) kind() string { return "shared" }

func (s *shared) members() []*Listener {
	if s.first == nil {
		return nil
	}
	return append([]*Listener{s.first}, s.others...)
}

func (s *shared) open() (*Listener, error) {
	if s.first == nil {
		first, err := s.listen()
		if err != nil {
			return nil, err
		}
		s.first = first
	}
	fd, err := unix.FcntlInt(uintptr(s.first.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("can't duplicate the listener: %w", err)
	}
	l := &Listener{ep: s.ep, fd: fd, inode: s.first.inode, inherited: s.first.inherited, member: true}
	s.others = append(s.others, l)
	return l, nil
}

// join: a daemon's own socket would be a second one.
func (s *shared) join(int) (*Listener, error) { return nil, errors.ErrUnsupported }

func (s *shared) listen() (*Listener, error) {
	if in := s.ep.inherited; in != nil {
		return &Listener{ep: s.ep, fd: in.fd, inode: in.inode, inherited: true, pad: true}, in.set(s.ep.spec.Options)
	}
	fd, err := bindSocket(s.ep)
	if err != nil {
		return nil, err
	}
	l := &Listener{ep: s.ep, fd: fd, pad: true}
	if l.inode, err = inodeOf(fd); err == nil {
		err = unix.Listen(fd, backlog(s.ep.spec))
	}
	if err != nil {
		unix.Close(fd)
		return nil, inUse(s.ep, err)
	}
	return l, nil
}

func (s *shared) steer(Plan) error       { return nil }
func (s *shared) loosen(*Listener) error { return nil }

func (s *shared) refresh() ([]*Listener, error) {
	if s.first == nil || s.refused {
		return nil, nil
	}
	listening, err := isListening(s.first.fd)
	if err != nil || listening {
		return nil, err
	}
	return append([]*Listener(nil), s.others...), nil
}

func (s *shared) relisten(*Listener) error {
	if listening, err := isListening(s.first.fd); err != nil || listening {
		return err
	}
	return listen(s.first.fd, backlog(s.ep.spec))
}

// close must not shut the socket down: the others are the same.
func (s *shared) close(l *Listener) error {
	s.others = drop(s.others, l)
	s.ep.plan = s.ep.plan.without(l)
	return l.closeFD()
}

func (s *shared) refuse() error {
	if s.ep.inherited != nil {
		return ErrInherited
	}
	s.refused = true
	shutdown(s.first.fd)
	return nil
}

// resume tells the guard too, which has seen the shutdown and is silent since.
func (s *shared) resume() error {
	s.refused = false
	if err := s.relisten(s.first); err != nil {
		return err
	}
	for _, l := range s.others {
		if err := s.ep.watch(l); err != nil {
			return err
		}
	}
	return nil
}

func (s *shared) parked() (*Listener, error) { return nil, nil }

// inherited is nobody: all have the socket.
func (s *shared) inherited() (*Listener, error) { return nil, nil }

func (s *shared) restore() error {
	var errs []error
	for _, l := range s.others {
		errs = append(errs, l.closeFD())
	}
	if s.first != nil {
		s.first.closed = true
	}
	return errors.Join(errs...)
}
