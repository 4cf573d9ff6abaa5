package reload

import (
	"cmp"
	"context"
	"time"

	"github.com/gapless-dev/gapless/reload/ready"
)

// How a canary is watched: what made it ready goes on. One check that fails may be
// chance; a connection may wait as long as a daemon under load takes to accept it.
const (
	canaryFall   = 3
	canaryEvery  = time.Second
	canaryAccept = 5 * time.Second
)

// keep returns when the candidate has failed several checks in a row, or ctx ends. A
// daemon that is ready because it said so, or after a delay, has no check that could go on.
func (w watcher) keep(ctx context.Context) error {
	check, every := w.check()
	if check == nil {
		<-ctx.Done()
		return nil
	}
	for failed := 0; ; {
		err := check(ctx)
		if ctx.Err() != nil {
			return nil
		}
		failed++
		if err == nil {
			failed = 0
		}
		if failed >= canaryFall {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

func (w watcher) check() (check func(context.Context) error, every time.Duration) {
	switch w.options.Mode {
	case ready.Probe:
		return func(ctx context.Context) error { return w.sys.once(ctx, w.options, w.target) }, w.options.Every()
	case ready.Auto, ready.Accept:
		patience := cmp.Or(w.options.Timeout, canaryAccept)
		return func(ctx context.Context) error {
			ctx, cancel := context.WithTimeoutCause(ctx, patience, errTooLate)
			defer cancel()
			return w.sys.accepted(ctx, w.target.Addrs)
		}, canaryEvery
	}
	return nil, 0
}
