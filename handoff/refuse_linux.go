package handoff

import (
	"errors"
)

// refuse shuts every socket down; they stay bound, so nobody else can take the
// address, and can listen again. Loose ones are left to their daemons: hidden, they
// get nothing, and a socket that listens later makes a group of its own, since
// members must be of one device.
func (g *group) refuse() error {
	if g.ep.inherited != nil {
		return ErrInherited
	}
	for _, l := range g.array {
		if l.loose && !l.hidden {
			return ErrServing
		}
	}
	for _, l := range append(array(nil), g.array...) {
		l.member = false
		switch {
		case l.pad:
			if err := l.closeFD(); err != nil {
				return err
			}
		case !l.loose:
			g.ep.unwatch(l)
			g.kernel.shutdown(l.fd)
			g.refusing = append(g.refusing, l)
		}
	}
	g.array = nil
	return nil
}

// resume leaves those that could not listen again for the next call.
func (g *group) resume() error {
	waiting := g.refusing
	g.refusing = nil
	var failed []error
	for _, l := range waiting {
		err := g.relisten(l)
		if err == nil {
			err = g.ep.watch(l)
		}
		if err != nil {
			g.refusing = append(g.refusing, l)
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
