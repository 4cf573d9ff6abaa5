package control

import (
	"context"
	"errors"

	"github.com/rs/zerolog"

	"github.com/gapless-dev/gapless/reload"
)

// Background asks for reloads that nobody waits for, one after the other: while one
// runs, all that are asked for meanwhile become one more, however many they are.
type Background struct {
	svc     Service
	log     zerolog.Logger
	pending chan reload.ReloadOptions
}

// NewBackground makes one; nothing happens until [Background.Run].
func NewBackground(svc Service, log zerolog.Logger) *Background {
	return &Background{svc: svc, log: log, pending: make(chan reload.ReloadOptions, 1)}
}

// Ask never blocks. Any goroutine may call it. When a request waits already it
// serves this one too: it has not begun, so it will see what this one wants seen.
func (b *Background) Ask(o reload.ReloadOptions) {
	select {
	case b.pending <- o:
	default:
	}
}

// Run does what is asked for until ctx ends.
func (b *Background) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-b.pending:
			_, err := b.svc.Reload(ctx, o)
			b.tell(ctx, err)
		}
	}
}

// tell logs refusals only: what became of a generation the service has logged.
func (b *Background) tell(ctx context.Context, err error) {
	var f *reload.Failure
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, reload.ErrEnded):
	case errors.As(err, &f) && f.Generation != 0:
	default:
		b.log.Warn().Str("service", b.svc.Name()).Str("event", "reload.refused").Msg(err.Error())
	}
}
