package reload

import (
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/spawn"
	"github.com/gapless-dev/gapless/reload/state"
)

// A daemon that goes to the background by itself ("daemon off" forgotten): the process
// that was started ends with 0, and a descendant serves, before or after that. Where
// binds are seen it is known which: the one that has the socket. That is the main
// process from then on.
//
//	main ends with 0 ─▶ who has one of its sockets? ─▶ that is followed
//	                    nobody yet, and others run ─▶ asked again when one listens
//	                    nobody, and none runs ─▶ it has ended

// mainProcess is the one that was started, until it has a successor. Whatever is about all
// of the generation's processes is that one's for ever.
type mainProcess struct {
	process
	next atomic.Pointer[successor] // set once, by the owner; others read it at any time
}

type successor struct {
	watched *spawn.Watched
	pid     int
	exited  chan struct{}
	exit    spawn.Exit // valid once exited is closed
}

func (p *mainProcess) PID() int {
	if next := p.next.Load(); next != nil {
		return next.pid
	}
	return p.process.PID()
}

func (p *mainProcess) Exited() <-chan struct{} {
	if next := p.next.Load(); next != nil {
		return next.exited
	}
	return p.process.Exited()
}

func (p *mainProcess) HasExited() bool {
	next := p.next.Load()
	if next == nil {
		return p.process.HasExited()
	}
	select {
	case <-next.exited:
		return true
	default:
		return false
	}
}

func (p *mainProcess) Exit() spawn.Exit {
	if next := p.next.Load(); next != nil {
		return next.exit
	}
	return p.process.Exit()
}

func (p *mainProcess) Signal(s syscall.Signal) error {
	if next := p.next.Load(); next != nil {
		return next.watched.Signal(s)
	}
	return p.process.Signal(s)
}

// mainEnded: the process that was started has.
func (s *Service) mainEnded(g *generation) {
	r := s.record(g)
	if g.proc.Exit().Failed() || g.proc.BindWatch() == nil || !r.Signalled.IsZero() || g.condemned || s.st.Goal != state.Run || !r.Phase.Running() {
		s.onExit(g)
		return
	}
	g.leaderless = true
	s.seekSuccessor(g)
}

// seekSuccessor among those that are left.
func (s *Service) seekSuccessor(g *generation) {
	proc := g.proc
	var inodes []uint64
	for inode := range g.bound {
		inodes = append(inodes, inode)
	}
	for l := range g.taken {
		inodes = append(inodes, l.Inode())
	}
	s.wg.Go(func() {
		w, pid, others := successorOf(proc, inodes)
		if !s.post(func() { s.succeed(g, w, pid, others && len(inodes) == 0) }) && w != nil {
			w.Close()
		}
	})
}

// successorOf is the first of them that has one of the sockets, and tells whether any run.
func successorOf(proc process, inodes []uint64) (w *spawn.Watched, pid int, others bool) {
	for range 2 { // one whose parent ended during the first look may have been passed over
		members, err := proc.Members()
		if err != nil || len(members) == 0 {
			continue
		}
		others = true
		for _, pid := range members {
			open, err := conns.Sockets(pid)
			if err != nil || !slices.ContainsFunc(inodes, func(inode uint64) bool { return open[inode] }) {
				continue
			}
			if w, err := spawn.Watch(pid); err == nil {
				return w, pid, true
			}
		}
	}
	return nil, 0, others
}

// succeed: w is followed, or, if there is none, waited for.
func (s *Service) succeed(g *generation, w *spawn.Watched, pid int, wait bool) {
	switch {
	case g.exited || !g.leaderless:
		if w != nil {
			w.Close()
		}
	case w == nil && !wait:
		g.leaderless = false
		s.onExit(g)
	case w != nil:
		g.leaderless = false
		s.followSuccessor(g, &successor{watched: w, pid: pid, exited: make(chan struct{})})
	}
}

func (s *Service) followSuccessor(g *generation, p *successor) {
	r, was := s.record(g), g.proc.PID()
	g.proc.next.Store(p)
	r.PID, r.PIDStart, r.Binary = p.pid, startTime(p.pid), binaryOf(p.pid)
	s.emit(event{kind: "generation.followed", generation: g.number, fields: map[string]any{"pid": p.pid, "was": was},
		text: fmt.Sprintf("%s: generation %d went to the background by itself: its main process is pid %d now, and was %d; it had better stay in the foreground", s.cfg.Name, g.number, p.pid, was)})
	if r.Phase == state.Live {
		s.writePIDFile(p.pid)
	}
	s.wg.Go(func() {
		defer p.watched.Close()
		err := p.watched.Wait(s.ctx)
		if err == nil {
			p.exit, err = p.watched.Exit()
		}
		if err != nil { // it is no child of ours, who are no subreaper: nobody tells
			p.exit = spawn.Exit{Code: 1}
		}
		close(p.exited)
		s.post(func() { s.hasEnded(g) })
	})
	if r.Phase == state.Starting {
		s.observe(g)
	}
}

// hasEnded: what the main process is now has, and it is told once.
func (s *Service) hasEnded(g *generation) {
	if !g.exited {
		s.onExit(g)
	}
}

// awaitEnd of g. All of its processes have gone only when the main one is known to have.
func (s *Service) awaitEnd(g *generation, proc *mainProcess) {
	<-proc.Exited()
	s.post(func() { s.mainEnded(g) })
	<-proc.Gone()
	s.awaitGone(g, proc)
}

// awaitGone is called when all have gone; a successor that was found meanwhile is known to
// have ended a little later.
func (s *Service) awaitGone(g *generation, proc *mainProcess) {
	<-proc.Exited()
	s.post(func() {
		if !proc.HasExited() {
			s.wg.Go(func() { s.awaitGone(g, proc) })
			return
		}
		s.hasEnded(g)
		s.onGone(g)
	})
}
