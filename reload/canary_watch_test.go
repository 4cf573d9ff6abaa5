package reload

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gapless-dev/gapless/reload/ready"
)

// watched gives the checks of a canary the outcomes, true for good; it tells what the watch
// came to, after how long, and how many checks it made. After the last it goes on with
// good ones for a minute.
func watched(t *testing.T, mode ready.Mode, outcomes ...bool) (took time.Duration, checks int, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		check := func() error {
			checks++
			if checks <= len(outcomes) && !outcomes[checks-1] {
				return errors.New("bad")
			}
			return nil
		}
		sys := system{once: func(context.Context, ready.Options, ready.Target) error { return check() }}
		w := watcher{sys: &sys, options: ready.Options{Mode: mode, Interval: time.Second}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		err = w.keep(ctx)
		took = time.Since(begun)
	})
	return took, checks, err
}

// One check that fails, or two, may be chance; three in a row are not.
func TestCanaryWatchForgivesChance(t *testing.T) {
	const good, bad = true, false
	if took, _, err := watched(t, ready.Probe, bad, bad, good, bad, bad, good, bad); err != nil || took != time.Minute {
		t.Errorf("with two in a row: %v after %s", err, took)
	}
	if took, checks, err := watched(t, ready.Probe, good, bad, bad, good, bad, bad, bad); err == nil || took != 6*time.Second || checks != 7 {
		t.Errorf("with three in a row: %v after %s, %d checks", err, took, checks)
	}
	if took, checks, err := watched(t, ready.Notify, bad, bad, bad); err != nil || took != time.Minute || checks != 0 {
		t.Errorf("of one that has no check: %v after %s, %d checks", err, took, checks)
	}
}
