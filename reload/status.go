package reload

import (
	"context"
	"os"
	"time"

	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/state"
)

// StatusSchema is the version of Status as JSON.
const StatusSchema = 1

// Status is the service as it is now. Counting connections reads the kernel's
// tables and /proc, in the caller's goroutine, so ask for it when somebody looks.
func (s *Service) Status(ctx context.Context) (Status, error) {
	status := Status{Schema: StatusSchema, HolderPID: os.Getpid()}
	looks := map[int]look{}
	err := s.ask(ctx, func() {
		status.Service = s.st.Clone()
		status.Measured, status.Queues = s.measureQueues()
		for number, g := range s.runs {
			if g.proc != nil {
				looks[number] = s.lookAt(g)
			}
		}
	})
	if err != nil {
		return Status{}, err
	}
	for i := range status.Measured {
		m := &status.Measured[i]
		if l, ok := looks[m.Generation]; ok {
			m.set(s.count(ctx, l))
		}
	}
	return status, nil
}

func (m *MeasuredSockets) set(n conns.Count, err error) {
	if err != nil {
		m.Connections = -1
		return
	}
	m.Connections, m.Idle, m.Oldest = n.Open, n.Idle, n.Oldest
}

// State is the service as its owner knows it, with nothing measured. It is cheap, and
// shows that the owner answers.
func (s *Service) State(ctx context.Context) (state.Service, error) {
	var st state.Service
	err := s.ask(ctx, func() { st = s.st.Clone() })
	return st, err
}

// measureQueues reads each listener's queue, which costs a system call each.
func (s *Service) measureQueues() ([]MeasuredSockets, []MeasuredEndpoint) {
	var sockets []MeasuredSockets
	for _, r := range s.st.Generations {
		m := MeasuredSockets{Generation: r.Number, Age: time.Since(r.Started)}
		if g := s.runs[r.Number]; g != nil {
			m.Queue, m.QueueLimit = g.queue()
		}
		sockets = append(sockets, m)
	}
	var reserves []MeasuredEndpoint
	for _, e := range s.eps {
		if e.reserve == nil {
			continue
		}
		if waiting, limit, err := e.reserve.Queue(); err == nil {
			reserves = append(reserves, MeasuredEndpoint{Endpoint: e.name, Queue: waiting, QueueLimit: limit})
		}
	}
	return sockets, reserves
}

// queue is what waits in the generation's listeners, and how much can.
func (g *generation) queue() (waiting, limit int) {
	for _, l := range g.listeners.all() {
		if n, most, err := l.Queue(); err == nil {
			waiting, limit = waiting+n, limit+most
		}
	}
	return waiting, limit
}

// MeasuredOf finds what was measured of a generation.
func (s Status) MeasuredOf(g state.Generation) MeasuredSockets {
	for _, m := range s.Measured {
		if m.Generation == g.Number {
			return m
		}
	}
	return MeasuredSockets{Generation: g.Number, Connections: -1}
}
