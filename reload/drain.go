package reload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/spawn"
	"github.com/gapless-dev/gapless/reload/state"
)

// settleTimeout is more than settling can take: a handshake's limit and an
// answer's, one after the other.
const settleTimeout = 15 * time.Second

var errUnsettled = errors.New("it takes too long")

// drain begins the end of a generation that new connections no longer go to.
func (s *Service) drain(g *generation) {
	s.record(g).Phase = state.Draining
	g.unsettled = true
	g.drains++
	this := g.drains
	s.wg.Go(func() { g.proc.Members() }) // remembers whose they are, while their parents run
	s.settle(g.ctx, g.number, g.listeners.all(), func(left handoff.Settled) {
		if g.drains == this {
			s.settled(g, left)
		}
	})
	s.limitDraining()
}

// settle calls done in the owner, once nothing is on its way to the listeners.
func (s *Service) settle(ctx context.Context, number int, listeners []*handoff.Listener, done func(handoff.Settled)) {
	settler := s.sys.settler(listeners...)
	s.wg.Go(func() {
		limited, cancel := spawn.WithPatience(ctx, settleTimeout, errUnsettled)
		defer cancel()
		left, err := settler.Wait(limited)
		s.post(func() {
			if err != nil && ctx.Err() == nil {
				s.report("settle.failed", number, err)
			}
			done(left)
		})
	})
}

// settled: nothing is on its way to g any more; only now it may be told to stop.
func (s *Service) settled(g *generation, left handoff.Settled) {
	g.unsettled = false
	level := levelInfo
	if !left.Clean() {
		level = levelWarn
	}
	s.emit(event{kind: "generation.settled", level: level, generation: g.number,
		text:   fmt.Sprintf("%s: generation %d has settled in %s", s.cfg.Name, g.number, left.Took.Round(time.Millisecond)),
		fields: map[string]any{"took_ms": left.Took.Milliseconds(), "half_open": left.HalfOpen, "queued": left.Queued, "unanswered": left.Unanswered}})
	s.letFinish(g)
	s.retire(g)
	s.holdOn()
}

// stopGeneration sends the stop signal, once in a generation's life.
func (s *Service) stopGeneration(g *generation) {
	r := s.record(g)
	patience := max(s.cfg.DrainTimeout, s.cfg.StopTimeout)
	if g.remnant != nil { // it has had its time for connections
		patience = s.cfg.StopTimeout
		g.remnant = nil
	}
	if !r.Signalled.IsZero() || g.exited || g.condemned || g.proc == nil {
		return
	}
	r.Signalled = time.Now()
	s.loosen(g)
	if err := g.proc.Signal(s.cfg.StopSignal); err != nil {
		s.report("generation.signal-failed", g.number, err)
	}
	s.emit(event{kind: "generation.stopping", generation: g.number,
		text: fmt.Sprintf("%s: generation %d was told to stop", s.cfg.Name, g.number)})
	l := s.lookAt(g)
	s.wg.Go(func() { s.watchDrain(g, l, patience) })
}

// watchDrain gives a generation the stop timeout, and up to patience if it has
// connections to finish.
func (s *Service) watchDrain(g *generation, l look, patience time.Duration) {
	last := time.NewTimer(patience)
	defer last.Stop()
	next := time.NewTimer(s.cfg.StopTimeout)
	defer next.Stop()
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-last.C:
			s.post(func() { s.kill(g, "its time is over") })
			return
		case <-next.C:
			if s.connections(g.ctx, l) == 0 {
				s.post(func() { s.kill(g, "its time is over") })
				return
			}
			next.Reset(time.Second)
		}
	}
}

// limitDraining stops the oldest of too many draining generations: each needs
// memory for a whole daemon.
func (s *Service) limitDraining() {
	draining := s.draining()
	for _, number := range draining[:max(0, len(draining)-s.cfg.MaxDraining)] {
		g := s.runs[number]
		if g == nil || g.exited || g.overdue {
			continue
		}
		g.overdue = true
		s.emit(event{kind: "generation.overdue", level: levelWarn, generation: number,
			text: fmt.Sprintf("%s: generation %d is stopped: more than %d are draining", s.cfg.Name, number, s.cfg.MaxDraining)})
		s.stopGeneration(g)
		s.killAfter(g, s.cfg.StopTimeout)
	}
}

// abandonReserve: who waited in a listener that will be nobody's is served by live now:
// it crashed, and a candidate with listeners of its own went live; or a pause is over.
// Handshakes may be under way to them still, so they are closed when they have settled.
func (s *Service) abandonReserve(count func(int)) (waited int) {
	if s.paused() {
		return 0
	}
	for i, e := range s.eps {
		l := e.reserve
		if l == nil {
			continue
		}
		s.setReserve(i, nil)
		waited += s.relayFrom(i, l, count)
		// What settling leaves is relayed or has gone.
		s.settle(s.ctx, 0, []*handoff.Listener{l}, func(handoff.Settled) {
			s.relayFrom(i, l, count)
			s.closeAbandoned(i, l)
		})
	}
	return waited
}

func (s *Service) closeAbandoned(i int, l *handoff.Listener) {
	if err := s.eps[i].Close(l); err != nil {
		s.report("listener.close-failed", 0, err)
	}
}
