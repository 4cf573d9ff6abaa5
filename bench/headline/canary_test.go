package headline

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
)

// drawn is over how many connections a share is judged.
const drawn = 20000

// A canary gets what it is given: its part of 20,000 connections is within three
// standard deviations of that (in 3 of 1,000 runs chance alone is further off, so one
// more look decides), and none when it is given nothing.
func TestCanaryShare(t *testing.T) {
	t.Parallel()
	b := binaries(t)
	s := subject{name: "canary", run: []string{"--canary", "10%", "--canary-for", "0s", "--", b.Daemon}}
	h := s.hold(t, b, rig.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if _, err := h.Gapless(ctx, "reload", h.Name, "--wait=false"); err != nil {
		t.Fatal(err)
	}
	if err := untilCanary(ctx, h); err != nil {
		t.Fatal(err)
	}
	for _, share := range []float64{0.1, 0.5, 0} {
		if _, err := h.Gapless(ctx, "canary", h.Name, fmt.Sprintf("%g%%", 100*share)); err != nil {
			t.Fatal(err)
		}
		off := deviation(t, ctx, h, share)
		if off > 3 {
			off = deviation(t, ctx, h, share)
		}
		if off > 3 {
			t.Errorf("a share of %g was missed twice, the second time by %.1f standard deviations", share, off)
		}
	}
	if _, err := h.Gapless(ctx, "promote", h.Name); err != nil {
		t.Error(err)
	}
	notRelayed(t, h)
}

func untilCanary(ctx context.Context, h *rig.Holder) error {
	for ctx.Err() == nil {
		st, err := h.Status(ctx)
		if err != nil {
			return err
		}
		for _, g := range st.Generations {
			if g.State == "canary" {
				return nil
			}
		}
		pass(ctx, 20*time.Millisecond)
	}
	return fmt.Errorf("there is no canary: %w", ctx.Err())
}

// deviation is how far the canary's part was from its share, in standard deviations of
// the binomial distribution; infinite if a share of nothing got something.
func deviation(t *testing.T, ctx context.Context, h *rig.Holder, share float64) float64 {
	t.Helper()
	st, err := h.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	load := bench.Load{Kind: bench.PerRequest, Clients: 8, Addr: st.Addr("http"), Max: drawn}
	for i := range byte(4) { // one address has 28,000 local ports
		load.LocalAddrs = append(load.LocalAddrs, netip.AddrFrom4([4]byte{127, 0, 0, 2 + i}))
	}
	r, err := load.Run(ctx)
	if err != nil || r.Failed() > 0 || r.OK != drawn {
		t.Fatalf("%d of %d failed: %v, %v", r.Failed(), r.Sent, r.Failures, err)
	}
	got, want := float64(r.Generations["2"]), share*drawn
	t.Logf("asked for %g, got %g of %d connections", share, got, drawn)
	switch sigma := math.Sqrt(drawn * share * (1 - share)); {
	case got == want:
		return 0
	case sigma == 0:
		return math.Inf(1)
	default:
		return math.Abs(got-want) / sigma
	}
}

// A canary that is killed again and again costs what it had in hand, and nobody is
// refused.
func TestCanaryDeathsCostOnlyWhatWasUnderWay(t *testing.T) {
	t.Parallel()
	b := binaries(t)
	s := subject{name: "canary", run: []string{"--canary", "25%", "--canary-for", "0s", "--", b.Daemon, "-style", "plain"}}
	h := s.hold(t, b, rig.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	loads := addressed(t, ctx, h, bench.Load{Kind: bench.PerRequest, Rate: 200}, bench.Load{Kind: bench.Slow, Rate: 20}, bench.Load{Kind: bench.Pause, Rate: 20})
	var kills []time.Time
	results := during(t, ctx, loads, func() { kills = killCanaries(t, ctx, h, rounds(5, 10)) })
	var table strings.Builder
	bench.Table(&table, results...)
	t.Logf("%d canaries killed:\n%s", len(kills), &table)
	for _, r := range results {
		onlyUnderWay(t, r, kills)
		if !r.RateMet {
			t.Errorf("%s: the offered rate was not met", r.Name)
		}
		if r.Kind == bench.PerRequest && len(r.Generations) != len(kills)+1 {
			t.Errorf("answered by %v", r.Generations)
		}
	}
}

func killCanaries(t *testing.T, ctx context.Context, h *rig.Holder, n int) (kills []time.Time) {
	t.Helper()
	for range n {
		reloaded := make(chan error, 1)
		go func() { reloaded <- h.Reload(ctx) }()
		if err := untilCanary(ctx, h); err != nil {
			t.Error(err, <-reloaded)
			return kills
		}
		spell(ctx)
		spell(ctx)
		st, err := h.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range st.Generations {
			if g.State == "canary" {
				kills = append(kills, time.Now())
				kill(t, g.PID)
			}
		}
		if err := <-reloaded; err == nil || !strings.Contains(err.Error(), "ended by itself during its canary") {
			t.Errorf("the reload: %v", err)
		}
		spell(ctx)
	}
	return kills
}
