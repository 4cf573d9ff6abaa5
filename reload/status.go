package reload

import (
	"context"
	"os"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// StatusSchema is the version of Status as JSON.
const StatusSchema = 1

// Status is the service as it is now. Counting connections reads the kernel's
// tables and /proc, in the caller's goroutine, so ask for it when somebody looks.
func (s *Service) Status(ctx context.Context) (Status, error) {
	status := Status{Schema: StatusSchema, HolderPID: os.Getpid()}
	procs := map[int]process{}
	err := s.ask(ctx, func() {
		status.Service = s.st.Clone()
		status.Measured, status.Queues = s.measureQueues()
		for number, g := range s.runs {
			if g.proc != nil {
				procs[number] = g.proc
			}
		}
	})
	if err != nil {
		return Status{}, err
	}
	for i := range status.Measured {
		m := &status.Measured[i]
		if proc := procs[m.Generation]; proc != nil {
			m.Connections = s.connections(ctx, proc)
		}
	}
	return status, nil
}

// connections of a generation; -1 where they can't be told.
func (s *Service) connections(ctx context.Context, proc process) int {
	members, err := proc.Members()
	switch {
	case err != nil:
		return -1
	case len(members) == 0:
		return 0
	}
	return s.sys.count(ctx, s.ports(), members)
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
			for _, l := range present(g.listeners) {
				if waiting, limit, err := l.Queue(); err == nil {
					m.Queue, m.QueueLimit = m.Queue+waiting, m.QueueLimit+limit
				}
			}
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

// MeasuredOf finds what was measured of a generation.
func (s Status) MeasuredOf(g state.Generation) MeasuredSockets {
	for _, m := range s.Measured {
		if m.Generation == g.Number {
			return m
		}
	}
	return MeasuredSockets{Generation: g.Number, Connections: -1}
}
