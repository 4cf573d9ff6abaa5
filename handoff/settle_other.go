//go:build !linux

package handoff

import (
	"context"
	"time"
)

// follow has nothing to ask here: the listener is shared, so what is queued in it
// is the next generation's, and a short wait lets the old one read what it has
// just accepted.
func (s *Settler) follow(ctx context.Context, _ time.Time) (Settled, error) {
	if len(s.fds) == 0 {
		return Settled{}, nil
	}
	return Settled{}, pause(ctx, 100*time.Millisecond)
}
