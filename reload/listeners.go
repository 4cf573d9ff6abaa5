package reload

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/state"
)

// openListeners gives g a listener at each endpoint: the reserve, with whoever waits in
// it, or a new one, which gets no traffic yet; where the daemon binds its own, only if
// clients are to wait for that, while the one before it ends. Who waits through a pause
// waits for its end, and not for g. The guard may not have been heard yet, and a first
// listener at an endpoint would get all of its traffic.
func (s *Service) openListeners(g *generation) error {
	s.mendAll()
	for i, e := range s.eps {
		if e.closed || (e.reserve == nil || s.paused()) && !s.offered(e) && s.cfg.Strategy != StrategyReplace {
			continue
		}
		if e.reserve == nil || s.paused() {
			l, err := e.Open()
			if err != nil {
				return err
			}
			g.listeners.add(i, l)
			continue
		}
		for _, ep := range e.all() { // refusing may have gone half its way
			if err := ep.Resume(); err != nil {
				return err
			}
		}
		g.awaited = true
		g.listeners.add(i, e.reserve)
		s.setReserve(i, nil)
	}
	s.st.Refusing = false
	return nil
}

// gets tells whether new connections go to l, but for a canary's.
func (s *Service) gets(i int, l *handoff.Listener) bool {
	return l.Endpoint() == s.eps[i].Endpoint && slices.Contains(s.eps[i].Plan().Live, l)
}

func (s *Service) setReserve(i int, l *handoff.Listener) {
	s.eps[i].reserve = l
	s.redescribe(i)
}

// holdReserve makes sure that an endpoint has a listener in which clients wait for
// the next generation, and steers to it.
func (s *Service) holdReserve(e *endpoint) error {
	if e.reserve != nil {
		return nil
	}
	l, err := e.Endpoint.Reserve()
	if err != nil {
		return err
	}
	e.reserve = l
	return e.Steer(handoff.Plan{Live: []*handoff.Listener{l}})
}

// holdAll steers everything to the reserve: from here on clients wait.
func (s *Service) holdAll() error {
	for i, e := range s.eps {
		if e.closed {
			continue
		}
		if err := s.holdReserve(e); err != nil {
			return err
		}
		s.setReserve(i, e.reserve)
	}
	return nil
}

// handOver makes g's listeners that the traffic goes to the reserve as soon as its
// daemon has ended, so that the next generation begins with those who wait in them.
// Where it alone was, and another is live, nobody is to wait.
func (s *Service) handOver(g *generation) {
	for i, l := range g.listeners.each() {
		if !s.gets(i, l) || s.unserved(i, l) {
			continue
		}
		if r := s.eps[i].reserve; r != nil && r.Endpoint() == l.Endpoint() {
			continue // there is one already; those who wait in this one are relayed to it
		}
		s.setReserve(i, l)
		g.listeners.remove(i, l)
		if err := l.Restore(s.cfg.NonBlocking); err != nil { // its backlog is how many clients may wait now
			s.report("listener.restore-failed", g.number, err)
		}
		if err := s.steerToReserve(i); err != nil {
			s.report("steer.failed", g.number, err)
		}
	}
}

// steerToReserve where the traffic was spread over several.
func (s *Service) steerToReserve(i int) error {
	e := s.eps[i]
	p := e.Plan()
	if len(p.Live) == 1 {
		return nil
	}
	p.Live = []*handoff.Listener{e.reserve}
	return e.Steer(p)
}

// returnListeners closes what g has. A listener that still gets the traffic, since
// no other generation is there, becomes the reserve instead.
func (s *Service) returnListeners(g *generation) {
	for i, l := range g.listeners.each() {
		if s.unserved(i, l) {
			s.closeFound(i)
			continue
		}
		if s.gets(i, l) && s.st.Goal != state.End {
			s.setReserve(i, l)
			continue
		}
		if err := l.Endpoint().Close(l); err != nil && !errors.Is(err, handoff.ErrSteered) {
			s.report("listener.close-failed", g.number, err)
		}
	}
	g.listeners = nil
	g.unbind()
	for i := range s.eps {
		s.closeFormer(i)
		s.reclaim(i)
	}
}

// loosen comes before anything that may end the daemon of g. A listener that the
// traffic goes to is left alone, unless the service ends: it is the next
// generation's, with those who wait in it.
func (s *Service) loosen(g *generation) {
	for i, l := range g.listeners.each() {
		if s.st.Goal != state.End && s.gets(i, l) {
			continue
		}
		if err := l.Endpoint().Loosen(l); err != nil {
			s.report("listener.loosen-failed", g.number, err)
		}
	}
}

// relay hands on the clients that wait in the listeners of a generation whose
// processes are gone, unless those listeners are what the traffic goes to: then the
// next generation takes them over as they are.
func (s *Service) relay(g *generation) {
	for i, l := range g.listeners.each() {
		if !s.gets(i, l) {
			s.relayFrom(i, l, s.relayed)
		}
	}
}

// relayed clients had come too late to an old listener: a daemon died, or ended before
// it had settled.
func (s *Service) relayed(clients int) {
	s.st.Relayed += clients
	s.emit(event{kind: "queue.relayed", level: levelWarn, fields: map[string]any{"clients": clients},
		text: fmt.Sprintf("%s: %d clients that waited in an old listener are relayed to the live generation", s.cfg.Name, clients)})
}

// relayFrom hands those who wait in l to whoever serves the address, and has them
// counted.
func (s *Service) relayFrom(i int, l *handoff.Listener, count func(int)) int {
	if s.eps[i].Steering() == "shared" {
		return 0 // the queue is live's too
	}
	clients, err := drainQueue(l)
	if err != nil {
		s.report("queue.relay-failed", 0, err)
	}
	if len(clients) == 0 {
		return 0
	}
	count(len(clients))
	if s.cfg.Relay == nil {
		handoff.CloseFiles(clients)
		return len(clients)
	}
	to := s.eps[i].Addr().String()
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, relayTimeout)
		defer cancel()
		if err := s.cfg.Relay(ctx, to, clients); err != nil {
			s.post(func() { s.report("queue.relay-failed", 0, err) })
		}
	})
	return len(clients)
}

// relayTimeout is for starting the worker, not for its connections.
const relayTimeout = 10 * time.Second

func drainQueue(l *handoff.Listener) ([]handoff.File, error) {
	var clients []handoff.File
	if waiting, _, err := l.Queue(); err != nil || waiting == 0 {
		return nil, ignoreUnsupported(err)
	}
	for {
		fd, ok, err := l.Accept()
		if err != nil || !ok {
			return clients, err
		}
		if handoff.IsProbe(fd) { // that of a candidate's readiness, which is asked for anew
			unix.Close(fd)
			continue
		}
		clients = append(clients, handoff.File{Name: "client", FD: fd})
	}
}

func ignoreUnsupported(err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// addrs are those of all endpoints.
func (s *Service) addrs() []netip.AddrPort {
	var all []netip.AddrPort
	for _, e := range s.eps {
		if e.closed {
			continue
		}
		all = append(all, e.Addr())
	}
	return all
}

// watchListeners hears of listeners that a daemon has shut down.
func (s *Service) watchListeners() {
	for {
		if err := s.sys.shutDown(s.ctx, s.guard); err != nil || !s.post(s.mendAll) {
			return
		}
	}
}

// mendAll mends what daemons did to their listeners. One that was told to stop may;
// a candidate has failed with it; otherwise we listen again, so that clients wait
// for whatever comes next instead of being refused.
func (s *Service) mendAll() { s.mendListeners(true) }

// mendListeners leaves those for later, if fail is not set, with which a candidate fails.
func (s *Service) mendListeners(fail bool) {
	for i, e := range s.eps {
		if e.closed { // the numbers of its descriptors are others' by now
			continue
		}
		for _, ep := range e.all() {
			left, err := ep.Refresh()
			if err != nil {
				s.report("listener.refresh-failed", 0, err)
			}
			for _, l := range left {
				s.mend(i, l, fail)
			}
		}
	}
}

func (s *Service) mend(i int, l *handoff.Listener, fail bool) {
	g := s.ownerOf(i, l)
	if g != nil {
		r, ending := s.record(g), s.st.Goal == state.End
		held := s.gets(i, l)
		if (ending || !held) && !l.Inherited() && (!r.Signalled.IsZero() || g.condemned || r.Phase == state.Failed) {
			return // it is loose: listening again it would be in no group of ours
		}
		if r.Phase == state.Canary || r.Phase == state.Starting && !held && l.Endpoint().Steering() != "shared" {
			if fail {
				s.fail(g, CodeNotReady, fmt.Sprintf("shut its listener at %s down", s.eps[i].Addr()))
			}
			return
		}
	}
	if err := l.Endpoint().Relisten(l); err != nil {
		s.report("listener.relisten-failed", 0, err)
		return
	}
	s.emit(event{kind: "listener.shutdown", level: levelWarn, generation: numberOf(g),
		text: fmt.Sprintf("%s: the daemon shut its listener at %s down; it listens again, and clients wait there until a generation accepts them", s.cfg.Name, s.eps[i].Addr())})
}

// downAt is the endpoint at which g has a listener that does not listen any more, -1 if
// there is none.
func (s *Service) downAt(g *generation) int {
	return slices.IndexFunc(g.listeners, isDown)
}

// isDown tells whether one of them does not listen any more; only then no connection may
// wait in it. The guard's word may come too
// late: a probe that was reset with the queue looks like one that was accepted. Of one
// that all share nobody knows who has shut it down.
func isDown(listeners []*handoff.Listener) bool {
	return slices.ContainsFunc(listeners, func(l *handoff.Listener) bool {
		_, limit, err := l.Queue()
		return err == nil && limit == 0 && l.Endpoint().Steering() != "shared"
	})
}

func (s *Service) ownerOf(i int, l *handoff.Listener) *generation {
	for _, g := range s.runs {
		if g.listeners.has(i, l) {
			return g
		}
	}
	return nil
}

func numberOf(g *generation) int {
	if g == nil {
		return 0
	}
	return g.number
}

// lookForForeign reports listeners of others at our ports, each time traffic was
// steered: they may take some of it.
func (s *Service) lookForForeign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	for _, e := range s.Addrs() {
		at, err := netip.ParseAddrPort(e.Addr)
		if err != nil {
			continue
		}
		foreign, err := s.sys.foreign(ctx, at, func(ctx context.Context) (known []uint64, err error) {
			err = s.ask(ctx, func() { known = s.knownInodes() })
			return known, err
		})
		if err != nil || len(foreign) == 0 {
			continue
		}
		s.post(func() {
			s.emit(event{kind: "listener.foreign", level: levelWarn, fields: map[string]any{"pid": foreign[0].PID, "name": foreign[0].Name, "address": foreign[0].Addr.String()},
				text: fmt.Sprintf("%s: pid %d (%s) listens at %s too and may take connections", s.cfg.Name, foreign[0].PID, foreign[0].Name, foreign[0].Addr)})
		})
	}
}

func (s *Service) knownInodes() []uint64 {
	var known []uint64
	for _, e := range s.eps {
		for _, ep := range e.all() {
			known = append(known, ep.Inodes()...)
		}
	}
	for _, in := range s.cfg.Inherited {
		if in != nil {
			known = append(known, in.Inode())
		}
	}
	return known
}
