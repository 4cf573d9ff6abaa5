//go:build linux

package handoff

import (
	"slices"
	"testing"
	"time"
)

// samples are the times of one step each. Benchmarks print their percentiles: a
// mean hides the one slow step that a client meets.
type samples []time.Duration

// time adds what f takes, and returns it.
func (s *samples) time(f func()) time.Duration {
	start := time.Now()
	f()
	took := time.Since(start)
	*s = append(*s, took)
	return took
}

func (s samples) percentile(p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[int(p/100*float64(len(sorted)-1)+0.5)]
}

// report prints percentiles in place of the mean.
func (s samples) report(b *testing.B) {
	b.Helper()
	if len(s) == 0 {
		b.Fatal("nothing was measured")
	}
	for unit, p := range map[string]float64{"p50-µs": 50, "p99-µs": 99, "max-µs": 100} {
		b.ReportMetric(float64(s.percentile(p).Nanoseconds())/1e3, unit)
	}
	b.ReportMetric(0, "ns/op")
}
