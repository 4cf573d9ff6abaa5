package reload

import (
	"slices"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/spawn"
	"github.com/gapless-dev/gapless/reload/state"
)

// Workers that listen each with a socket of their own, and one of them ends: its socket
// goes on to listen, since we have a duplicate, and takes its share of the clients,
// whom nobody accepts. So the end of whoever has listened is waited for.

// watchWorker is called by the goroutine that answers its calls, while pid waits for the
// answer: so the number is its own. The main process's end is known anyway.
func (s *Service) watchWorker(g *generation, pid int) {
	fresh := false
	if s.ask(g.ctx, func() {
		fresh = g.proc != nil && g.proc.PID() != pid && !g.workers[pid]
		if fresh {
			g.workers[pid] = true
		}
	}) != nil || !fresh {
		return
	}
	w, err := spawn.Watch(pid)
	if err != nil {
		s.post(func() { delete(g.workers, pid) })
		return // it has ended, or nobody can be watched here
	}
	s.wg.Go(func() {
		defer w.Close()
		if w.Wait(g.ctx) != nil {
			return
		}
		s.ask(g.ctx, func() { delete(g.workers, pid) })
		gone := s.closedSockets(g)
		s.ask(g.ctx, func() { s.workerEnded(g, gone) })
	})
}

// workerEnded: its sockets leave, if the generation serves on with others. The last at an
// address stays, so that clients wait in it, for the next worker or generation; and one
// that ends has its own way of leaving.
func (s *Service) workerEnded(g *generation, gone map[uint64]bool) {
	r := s.record(g)
	if r == nil || !r.Phase.Running() || r.Phase == state.Draining || g.proc.HasExited() {
		return
	}
	for _, listeners := range g.listeners {
		if !slices.ContainsFunc(listeners, func(l *handoff.Listener) bool { return !gone[l.Inode()] }) {
			for _, l := range listeners {
				delete(gone, l.Inode())
			}
		}
	}
	s.shed(g, gone)
}
