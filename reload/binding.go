package reload

import (
	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
)

// binding is what one generation binds by itself. All but the watch is the owner's.
type binding struct {
	// bound are its sockets that do not listen yet, by inode: duplicates that are ours.
	bound map[uint64]boundSocket
	// taken are its listeners that it has bound itself: its own, or one of ours that was
	// put in their place.
	taken map[*handoff.Listener]bool
	// listened are those of them that it has asked to listen with.
	listened map[*handoff.Listener]bool
	// alone are those that it did not want to share an address with another of its own.
	alone map[uint64]bool
	// workers are processes, beside the main one, that have listened.
	workers map[int]bool
	unseen  bool // that its sockets can't be had has been told
	// elsewhere it listens too, where nobody has asked it to.
	elsewhere []string
	hints     []string // what to do about it
}

type boundSocket struct {
	fd    int
	place place
}

func newBinding() binding {
	return binding{bound: map[uint64]boundSocket{}, taken: map[*handoff.Listener]bool{}, listened: map[*handoff.Listener]bool{}, alone: map[uint64]bool{}, workers: map[int]bool{}}
}

// bind keeps a socket that it has bound, until it listens.
func (g *generation) bind(inode uint64, b boundSocket, alone bool) {
	if before, ok := g.bound[inode]; ok { // a call that came twice
		unix.Close(before.fd)
	}
	g.bound[inode], g.alone[inode] = b, alone
	if g.ctx.Err() != nil {
		g.unbind()
	}
}

// unbind closes what never listened.
func (g *generation) unbind() {
	for inode, b := range g.bound {
		unix.Close(b.fd)
		delete(g.bound, inode)
	}
}

// binds tells whether the daemon binds by itself.
func (g *generation) binds() bool { return len(g.taken) > 0 }

// bindsElsewhere: what it has at endpoint i is of another key.
func (g *generation) bindsElsewhere(i int, key handoff.Key) bool {
	for _, l := range g.listeners.at(i) {
		if g.taken[l] && !l.Endpoint().Key().Same(key) {
			return true
		}
	}
	for _, b := range g.bound {
		if b.place.i == i && !b.place.key.Same(key) {
			return true
		}
	}
	return false
}
