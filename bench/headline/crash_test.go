package headline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
)

// A crash costs what was under way in the process that died, and nobody else: no
// connection is refused, and who waits in the queue, or comes before the replacement
// serves, is served by that.
func TestCrashesCostOnlyWhatWasUnderWay(t *testing.T) {
	t.Parallel()
	b := binaries(t)
	s := subject{name: "plain", run: []string{"--", b.Daemon, "-style", "plain"}}
	h := s.hold(t, b, rig.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	loads := addressed(t, ctx, h, bench.Load{Kind: bench.PerRequest, Rate: 200}, bench.Load{Kind: bench.Slow, Rate: 10}, bench.Load{Kind: bench.Pause, Rate: 20})
	var kills []time.Time
	results := during(t, ctx, loads, func() { kills = killAll(t, ctx, h, reloads) })
	var table strings.Builder
	bench.Table(&table, results...)
	t.Logf("%d crashes:\n%s", len(kills), &table)
	for _, r := range results {
		onlyUnderWay(t, r, kills)
		if !r.RateMet {
			t.Errorf("%s: the offered rate was not met", r.Name)
		}
	}
}

// killAll kills the live daemon again and again. The reload in between is a new
// version, with which the back-off begins anew.
func killAll(t *testing.T, ctx context.Context, h *rig.Holder, n int) (kills []time.Time) {
	t.Helper()
	for range n {
		st, err := h.Status(ctx)
		if err != nil || st.Live() == nil {
			t.Fatalf("nobody is live: %v", err)
		}
		pid, number := st.Live().PID, st.Live().Number
		kills = append(kills, time.Now())
		kill(t, pid)
		if err := untilReplaced(ctx, h, number); err != nil {
			t.Fatal(err)
		}
		spell(ctx)
		if err := h.Reload(ctx); err != nil {
			t.Fatal(err)
		}
		spell(ctx)
	}
	return kills
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func untilReplaced(ctx context.Context, h *rig.Holder, number int) error {
	for ctx.Err() == nil {
		st, err := h.Status(ctx)
		if err != nil {
			return err
		}
		if live := st.Live(); live != nil && live.Number > number {
			return nil
		}
		pass(ctx, 20*time.Millisecond)
	}
	return fmt.Errorf("generation %d was not replaced: %w", number, ctx.Err())
}

// onlyUnderWay: each failure is a connection that broke, and had begun before a kill
// and not ended by then.
func onlyUnderWay(t *testing.T, r *bench.Result, kills []time.Time) {
	t.Helper()
	broken := []bench.Class{bench.ResetBefore, bench.ResetAfter, bench.EOF, bench.Short}
	if len(r.Listed) < r.Failed() {
		t.Fatalf("%s: only %d of %d failures are known", r.Name, len(r.Listed), r.Failed())
	}
	for _, f := range r.Listed {
		underWay := slices.ContainsFunc(kills, func(kill time.Time) bool {
			at := kill.Sub(r.Started)
			return f.Begun <= at+time.Millisecond && at <= f.At
		})
		if !underWay || !slices.Contains(broken, f.Class) {
			t.Errorf("%s: %+v", r.Name, f)
		}
	}
}
