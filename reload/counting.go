package reload

import (
	"context"

	"github.com/gapless-dev/gapless/handoff/conns"
)

// countLive is how many connections the live generation has open; -1 where it can't
// be told. It is for goroutines beside the owner.
func (s *Service) countLive(ctx context.Context) int {
	var proc process
	err := s.ask(ctx, func() {
		if live := s.st.Live(); live != nil {
			proc = s.runs[live.Number].proc
		}
	})
	if err != nil || proc == nil {
		return 0
	}
	pids, err := proc.Members()
	if err != nil {
		pids = []int{proc.PID()}
	}
	return s.sys.count(ctx, s.ports(), pids)
}

// ports are those of all endpoints; they do not change once the service has begun.
func (s *Service) ports() []uint16 {
	var all []uint16
	for _, e := range s.eps {
		all = append(all, e.Addr().Port())
	}
	return all
}

// countConnections is -1 where it can't be told.
func countConnections(ctx context.Context, ports []uint16, pids []int) int {
	d, err := conns.Open()
	if err != nil {
		return -1
	}
	defer d.Close()
	n, err := d.Count(ctx, ports, pids)
	if err != nil {
		return -1
	}
	return n.Open
}
