package reload

import (
	"context"
	"net/netip"
	"sync"

	"github.com/gapless-dev/gapless/handoff/conns"
)

// look is a question for the connections of one generation. The owner makes it; any
// goroutine may ask it.
type look struct {
	proc     process
	ages     *ages
	question conns.Question
}

// ages of a generation's connections are what the looks at it, one at a time, have seen
// of them. They decide nothing, so they are nobody's state.
type ages struct {
	mu sync.Mutex
	conns.Ages
}

// lookAt g, which has a process.
func (s *Service) lookAt(g *generation) look {
	q := conns.Question{Ports: s.ports(), IdleAfter: s.cfg.DrainIdle}
	if q.Listeners = g.ownInodes(); q.Listeners != nil {
		q.Cgroup = g.proc.Cgroup()
	}
	return look{proc: g.proc, ages: &g.ages, question: q}
}

// ownInodes are those of its listeners, if it has made all of them: what comes by these is
// of its cgroup. Else it is nil.
func (g *generation) ownInodes() (all []uint64) {
	if g.served {
		return nil
	}
	for _, l := range g.listeners.all() {
		if !l.Own() {
			return nil
		}
		all = append(all, l.Inode())
	}
	return all
}

// count costs milliseconds of processor time, and tens of them where there are thousands
// of connections.
func (s *Service) count(ctx context.Context, l look) (conns.Count, error) {
	members, err := l.proc.Members()
	if err != nil || len(members) == 0 {
		return conns.Count{}, err
	}
	l.ages.mu.Lock()
	defer l.ages.mu.Unlock()
	q := l.question
	q.PIDs, q.Ages = members, &l.ages.Ages
	return s.sys.count(ctx, q)
}

// connections are how many are open; -1 where it can't be told.
func (s *Service) connections(ctx context.Context, l look) int {
	n, err := s.count(ctx, l)
	if err != nil {
		return -1
	}
	return n.Open
}

// countLive is how many connections the live generation has open; -1 where it can't
// be told. It is for goroutines beside the owner.
func (s *Service) countLive(ctx context.Context) int {
	var at *look
	err := s.ask(ctx, func() {
		if live := s.liveGeneration(); live != nil {
			l := s.lookAt(live)
			at = &l
		}
	})
	if err != nil || at == nil {
		return 0
	}
	return s.connections(ctx, *at)
}

// ports are those of all endpoints. It may be called by any goroutine.
func (s *Service) ports() []uint16 {
	var all []uint16
	for _, e := range s.Addrs() {
		if at, err := netip.ParseAddrPort(e.Addr); err == nil {
			all = append(all, at.Port())
		}
	}
	return all
}

func countConnections(ctx context.Context, q conns.Question) (conns.Count, error) {
	d, err := conns.Open()
	if err != nil {
		return conns.Count{}, err
	}
	defer d.Close()
	return d.Count(ctx, q)
}
