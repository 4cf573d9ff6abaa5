package spawn

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPatienceEnds(t *testing.T) {
	over := errors.New("over")
	for _, d := range []time.Duration{1, 10, time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			ctx, cancel := WithPatience(t.Context(), d, over)
			defer cancel()
			<-ctx.Done()
			if took := time.Since(began); took < d-spells || took > d+spells || context.Cause(ctx) != over {
				t.Errorf("%s took %s: %v", d, took, context.Cause(ctx))
			}
		})
	}
}

func TestPatienceIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := WithPatience(t.Context(), time.Hour, errors.New("over"))
		time.Sleep(59 * time.Minute)
		cancel()
		if context.Cause(ctx) != context.Canceled {
			t.Errorf("%v", context.Cause(ctx))
		}
		time.Sleep(time.Hour)
		parent, end := context.WithCancelCause(t.Context())
		ctx, cancel = WithPatience(parent, time.Hour, errors.New("over"))
		defer cancel()
		end(errors.New("of the parent"))
		if <-ctx.Done(); context.Cause(ctx).Error() != "of the parent" {
			t.Errorf("%v", context.Cause(ctx))
		}
	})
}
