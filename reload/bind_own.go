package reload

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/state"
)

// listens: the daemon asks to listen with a socket; ours tells whether we know it. A
// second time changes nothing but the backlog, and that is the endpoint's.
func (s *Service) listens(g *generation, inode uint64) (answer unix.Errno, ours bool) {
	if b, ok := g.bound[inode]; ok {
		delete(g.bound, inode)
		return s.joins(g, b), true
	}
	for _, l := range g.listeners.all() {
		if l.Inode() == inode {
			s.hasListened(g, l)
			return 0, true
		}
	}
	return 0, false
}

func (s *Service) joins(g *generation, b boundSocket) unix.Errno {
	p := s.placeNow(b.place)
	switch {
	case s.record(g) == nil || s.record(g).Phase == state.Failed:
		unix.Close(b.fd)
		return unix.EADDRINUSE
	case p.i < 0:
		p.i = s.find(p.spec, p.key)
	case s.conflicts(g, p):
		unix.Close(b.fd)
		return s.refuseBind(g, p)
	case !s.eps[p.i].Key().Same(p.key):
		s.rekey(p.i, p.key)
	}
	if err := s.holdThere(p.i); err != nil {
		unix.Close(b.fd)
		s.report("bind.failed", g.number, err)
		return unix.EADDRINUSE
	}
	l, err := s.eps[p.i].Join(b.fd)
	if err != nil {
		s.report("bind.failed", g.number, err)
		return unix.EADDRINUSE
	}
	s.took(g, p.i, l)
	return 0
}

// placeNow is where a socket belongs that was bound a while ago: its endpoint may have
// been closed meanwhile, and one to be found may have been, by another socket of the
// same address.
func (s *Service) placeNow(p place) place {
	if p.i >= 0 && s.eps[p.i].closed {
		p = place{i: -1, key: p.key, spec: s.eps[p.i].spec}
	}
	if p.i < 0 {
		return s.again(p)
	}
	return p
}

// holdThere: in a pause clients wait at an endpoint that is new, too.
func (s *Service) holdThere(i int) error {
	e := s.eps[i]
	if !s.paused() || e.reserve != nil {
		return nil
	}
	l, err := e.Reserve()
	if err == nil {
		s.setReserve(i, l)
	}
	return err
}

// took: the daemon listens with a socket of its own. What it was offered there is not
// its any more; clients that wait in it are relayed when somebody is live.
func (s *Service) took(g *generation, i int, l *handoff.Listener) {
	e := s.eps[i]
	offered := g.untaken(i)
	for _, o := range offered {
		g.listeners.remove(i, o)
		if o.Endpoint() != e.Endpoint || s.gets(i, o) {
			s.leaveOver(i, o)
		}
	}
	g.listeners.add(i, l)
	g.taken[l] = true
	if err := s.directTo(g, i); err != nil {
		s.report("steer.failed", g.number, err)
	}
	for _, o := range offered {
		if o.Endpoint() == e.Endpoint && !s.gets(i, o) && !e.left(o) {
			s.closeAbandoned(i, o)
		}
	}
	s.record(g).Listeners = s.describe(g)
	s.redescribe(i)
	s.note(g, i, "keep")
	s.hasListened(g, l)
	if s.st.Live() != nil && s.record(g).Phase == state.Live {
		s.abandonLeftovers(i)
	}
}

// directTo has the traffic follow what g has at endpoint i now.
func (s *Service) directTo(g *generation, i int) error {
	if s.record(g).Phase == state.Live && !s.paused() {
		return s.direct(g)
	}
	return s.direct(nil)
}

func (g *generation) untaken(i int) (all []*handoff.Listener) {
	for _, l := range g.listeners.at(i) {
		if !g.taken[l] {
			all = append(all, l)
		}
	}
	return all
}

// hasListened: one more sign that it can serve.
func (s *Service) hasListened(g *generation, l *handoff.Listener) {
	if g.listened[l] {
		return
	}
	g.listened[l] = true
	g.served = g.served || !l.Own()
	if g.leaderless {
		s.seekSuccessor(g)
	}
	if s.record(g).Phase == state.Starting && g.proc != nil {
		s.observe(g)
	}
}

// note how the daemon gets its listeners.
func (s *Service) note(g *generation, i int, how string) {
	g.own = true
	s.record(g).Delivery = string(DeliveryBind)
	s.emit(event{kind: "listener.bound", level: levelDebug, generation: g.number, fields: map[string]any{"address": s.eps[i].Addr().String(), "how": how},
		text: fmt.Sprintf("%s: generation %d has bound %s", s.cfg.Name, g.number, s.eps[i].Addr())})
}

// closedSockets are those of g's own that none of its processes has open any more: we
// would hold a place for clients that nobody accepts. It is for goroutines beside the
// owner.
func (s *Service) closedSockets(g *generation) map[uint64]bool {
	var inodes []uint64
	var proc *mainProcess
	err := s.ask(g.ctx, func() {
		proc = g.proc
		for inode := range g.bound {
			inodes = append(inodes, inode)
		}
		for l := range g.taken {
			inodes = append(inodes, l.Inode())
		}
	})
	if err != nil || len(inodes) == 0 || proc == nil {
		return nil
	}
	missing, err := s.sys.missing(proc, inodes)
	if err != nil {
		return nil
	}
	closed := map[uint64]bool{}
	for _, i := range missing {
		closed[inodes[i]] = true
	}
	return closed
}

// shed lets go of sockets that g has closed. Clients that wait in one go to its others,
// and where there is none, they wait for the next.
func (s *Service) shed(g *generation, closed map[uint64]bool) {
	for inode, b := range g.bound {
		if closed[inode] {
			unix.Close(b.fd)
			delete(g.bound, inode)
		}
	}
	for i, l := range g.listeners.each() {
		if !closed[l.Inode()] || !g.taken[l] {
			continue
		}
		g.listeners.remove(i, l)
		delete(g.taken, l)
		s.record(g).Listeners = s.describe(g)
		s.emit(event{kind: "listener.left", level: levelInfo, generation: g.number, fields: map[string]any{"address": l.Endpoint().Addr().String()},
			text: fmt.Sprintf("%s: no process of generation %d has one of its listeners at %s any more", s.cfg.Name, g.number, l.Endpoint().Addr())})
		s.eps[i].leftovers = append(s.eps[i].leftovers, l)
		if len(g.listeners.at(i)) == 0 {
			continue
		}
		if err := s.directTo(g, i); err != nil {
			s.report("steer.failed", g.number, err)
		}
		s.abandonLeftovers(i)
	}
}

// listensElsewhere: at an address that nobody has named, clients are cut at each reload.
// If that is all that it does, it was to be named.
func (s *Service) listensElsewhere(g *generation, at netip.AddrPort) {
	if at.Port() == 0 || slices.Contains(g.elsewhere, at.String()) {
		return
	}
	g.elsewhere = append(g.elsewhere, at.String())
	if len(s.cfg.Specs) == 0 || s.record(g).Phase != state.Starting {
		return
	}
	hint := fmt.Sprintf("it listens on %s; use -l %s", shortAddr(at), specOfAddr(at))
	g.hints = append(g.hints, hint)
	s.emit(event{kind: "listener.elsewhere", level: levelWarn, generation: g.number, fields: map[string]any{"address": at.String()}, text: s.cfg.Name + ": " + hint})
}

// insteadOf says where it listens, if that is not where it is wanted at all.
func (g *generation) insteadOf() string {
	if len(g.hints) == 0 || g.binds() {
		return ""
	}
	return "; " + strings.Join(g.hints, "; ")
}

// shortAddr is ":8000" for all addresses.
func shortAddr(at netip.AddrPort) string {
	if at.Addr().IsUnspecified() {
		return fmt.Sprintf(":%d", at.Port())
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String()
}

// specOfAddr is what -l takes for it.
func specOfAddr(at netip.AddrPort) string {
	if at.Addr().IsUnspecified() {
		return fmt.Sprint(at.Port())
	}
	return shortAddr(at)
}
