package speed

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
)

const settleReloads = 20

// BenchmarkSettle reloads under load and reads from the events how long each old
// generation took to settle: the time for which two run, less what they need to
// stop. It waits for the answers to what is in flight, so the slowest answer is a
// part of it.
func BenchmarkSettle(b *testing.B) {
	b.Run("300 requests a second", func(b *testing.B) {
		benchmarkSettle(b, bench.Load{Kind: bench.PerRequest, Rate: 300})
	})
	b.Run("and 300 ms answers in flight", func(b *testing.B) {
		benchmarkSettle(b, bench.Load{Kind: bench.PerRequest, Rate: 300}, bench.Load{Kind: bench.Slow, Rate: 30})
	})
}

func benchmarkSettle(b *testing.B, loads ...bench.Load) {
	h := hold(b, "-l", "http=127.0.0.1:0", "--max-draining", "21", "--", built.Daemon)
	var took samples
	for b.Loop() {
		before := len(h.events("generation.settled"))
		underLoad(b, h, loads, func() {
			for range settleReloads {
				h.reload()
				h.quiet()
			}
		})
		for _, e := range h.events("generation.settled")[before:] {
			ms, ok := e.Fields["took_ms"].(float64)
			if !ok || e.Level != "info" {
				b.Fatalf("not settled: %+v", e)
			}
			took = append(took, ms)
		}
	}
	if len(took) < settleReloads {
		b.Fatalf("%d generations have settled of %d", len(took), settleReloads)
	}
	withoutMean(b)
	b.ReportMetric(took.median(b), "settle-p50-ms")
	b.ReportMetric(took.percentile(b, 95), "settle-p95-ms")
	b.ReportMetric(took.percentile(b, 100), "settle-max-ms")
}

// underLoad runs the loads for as long as f takes; every request must succeed.
func underLoad(b *testing.B, h *holder, loads []bench.Load, f func()) {
	b.Helper()
	ctx, stop := context.WithCancel(h.ctx)
	var wg sync.WaitGroup
	for _, l := range loads {
		l.Addr, l.Duration = h.addr(), 2*time.Minute
		wg.Go(func() { mustSucceed(b, ctx, l) })
	}
	defer func() { stop(); wg.Wait() }()
	f()
}

func mustSucceed(b *testing.B, ctx context.Context, l bench.Load) {
	r, err := l.Run(ctx)
	switch {
	case err != nil:
		b.Error(err)
	case r.OK == 0 || r.Failed() > 0:
		b.Errorf("%s: %d requests, failures: %v", r.Name, r.Sent, r.Failures)
	}
}
