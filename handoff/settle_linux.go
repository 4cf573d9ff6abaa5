package handoff

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/conns"
)

// lookupMost is up to how many connections are asked for one by one: a dump
// walks the kernel's whole connection hash, which costs as much as some hundred
// exact questions.
const lookupMost = 64

// apartMost: accept(2) takes a connection off the queue a moment before it gives it
// an inode, and may be preempted in between; hardly so for several looks on end.
const apartMost = 2

// pending are the connections that were begun before the switch and are not
// settled yet, by cookie, which stays the same from SYN_RECV to the end.
type pending struct {
	diag     *conns.Diag
	settler  *Settler
	deadline time.Time // of handshakes
	open     map[uint64]conns.Conn
	apart    map[uint64]int // how often one was seen to wait while the old queues were empty
	halfOpen int            // given up
}

func (s *Settler) follow(ctx context.Context, start time.Time) (Settled, error) {
	if len(s.fds) == 0 {
		return Settled{}, nil
	}
	if err := barrier(ctx); err != nil {
		return s.cutShort(err)
	}
	diag, err := conns.Open()
	if err != nil {
		return Settled{}, fmt.Errorf("can't follow connections: %w", err)
	}
	defer diag.Close()
	p := &pending{diag: diag, settler: s, deadline: start.Add(handshakeTimeout)}
	if err := p.snapshot(ctx); err != nil {
		return s.cutShort(err)
	}
	return p.wait(ctx, start.Add(answerTimeout))
}

// cutShort: of the connections only those in the queues can be told.
func (s *Settler) cutShort(why error) (Settled, error) {
	queued, err := s.queued()
	return Settled{Queued: queued}, errors.Join(why, err)
}

// barrier returns when no CPU is still running the old program on a packet:
// programs are freed, and packets handled, under RCU, and MEMBARRIER_CMD_GLOBAL
// waits for a grace period (kernel/sched/membarrier.c). Where it is refused, a
// tenth of a second is much more than a packet takes.
func barrier(ctx context.Context) error {
	const global = 1
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		return pause(ctx, 100*time.Millisecond)
	}
	return nil
}

func (p *pending) snapshot(ctx context.Context) error {
	all, err := p.dump(ctx)
	if err != nil {
		return err
	}
	p.open, p.apart = map[uint64]conns.Conn{}, map[uint64]int{}
	for _, c := range all {
		if p.unsettled(c) {
			p.open[c.Cookie] = c
		}
	}
	return nil
}

func (p *pending) dump(ctx context.Context) ([]conns.Conn, error) {
	all, err := p.diag.Dump(ctx, conns.Query{
		Families: p.settler.families,
		States:   conns.Set(conns.SynRecv, conns.Established, conns.CloseWait),
		Ports:    p.settler.ports,
		Info:     true,
	})
	if err != nil {
		return nil, fmt.Errorf("can't follow connections: %w", err)
	}
	return all, nil
}

// unsettled: the handshake is under way, or no answer has been sent yet and the
// connection is young. LastDataSent counts from the handshake while nothing was.
func (p *pending) unsettled(c conns.Conn) bool {
	switch c.State {
	case conns.SynRecv:
		return true
	case conns.Established, conns.CloseWait:
		return c.Info != nil && !c.Info.Answered() && c.Info.LastDataSent < answerTimeout
	}
	return false
}

// wait follows the set until it is empty and the queues were empty twice.
func (p *pending) wait(ctx context.Context, queueDeadline time.Time) (Settled, error) {
	empty := 0
	for every := settleMinPoll; ; every = min(every*5/4, settleMaxPoll) {
		queued, err := p.settler.queued()
		if err != nil {
			return Settled{}, err
		}
		empty++
		if queued > 0 && time.Now().Before(queueDeadline) {
			empty = 0
		}
		if len(p.open) == 0 && empty >= 2 {
			return Settled{HalfOpen: p.halfOpen, Queued: queued}, nil
		}
		if err := pause(ctx, every); err != nil {
			return p.left(queued), err
		}
		if err := p.look(ctx, queued == 0); err != nil {
			return p.left(queued), err
		}
	}
}

func (p *pending) left(queued int) Settled {
	s := Settled{HalfOpen: p.halfOpen, Queued: queued}
	for _, c := range p.open {
		if c.State == conns.SynRecv {
			s.HalfOpen++
		} else {
			s.Unanswered++
		}
	}
	return s
}

// look drops from the set what has settled since, and what turns out to be another
// listener's: what waits in a queue now and did at the last look, while the old
// queues were empty in between, is in none of those.
func (p *pending) look(ctx context.Context, queuesEmpty bool) error {
	now, err := p.now(ctx)
	if err != nil {
		return err
	}
	for cookie, before := range p.open {
		c, there := now[cookie]
		switch {
		case !there || !p.unsettled(c):
			delete(p.open, cookie)
		case queuesEmpty && waits(before) && waits(c) && p.apart[cookie] >= apartMost:
			delete(p.open, cookie)
		case c.State == conns.SynRecv && !time.Now().Before(p.deadline):
			p.halfOpen++
			delete(p.open, cookie)
		default:
			p.open[cookie] = c
			p.apart[cookie]++
			if !queuesEmpty || !waits(c) {
				p.apart[cookie] = 0
			}
		}
	}
	return nil
}

// waits tells whether a connection is in an accept queue: it is there before its
// state is ESTABLISHED, and has no inode until it is accepted (tcp_check_req in
// net/ipv4/tcp_minisocks.c, sock_graft in include/net/sock.h).
func waits(c conns.Conn) bool { return c.State != conns.SynRecv && c.Inode == 0 }

// now asks for each, or lists all and asks for those that are not in the list, for
// a list may miss one.
func (p *pending) now(ctx context.Context) (map[uint64]conns.Conn, error) {
	now := map[uint64]conns.Conn{}
	if len(p.open) > lookupMost {
		all, err := p.dump(ctx)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			now[c.Cookie] = c
		}
	}
	for cookie, c := range p.open {
		if _, listed := now[cookie]; listed {
			continue
		}
		found, there, err := p.diag.Lookup(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("can't follow a connection: %w", err)
		}
		if there {
			now[cookie] = found
		}
	}
	return now, nil
}

func (s *Settler) queued() (int, error) {
	sum := 0
	for _, fd := range s.fds {
		n, _, err := queue(fd)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
