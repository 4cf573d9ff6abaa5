package spawn

import (
	"context"
	"time"
)

// spells are the parts of which a wait is made.
const spells = 16

// WithPatience is [context.WithTimeoutCause] for waiting for another process: time in
// which this one did not run (it was stopped, or its machine was) hardly counts. For the
// other may have done its part meanwhile, and that must be seen before its time is
// called over. It waits spells times, and a wait that takes much too long is one all
// the same.
func WithPatience(parent context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	left := spells
	var t *time.Timer
	set := make(chan struct{})
	t = time.AfterFunc(max(d/spells, 1), func() {
		<-set
		switch left--; {
		case ctx.Err() != nil:
		case left == 0:
			cancel(cause)
		default:
			t.Reset(max(d/spells, 1))
		}
	})
	close(set)
	return ctx, func() {
		t.Stop()
		cancel(context.Canceled)
	}
}
