package speed

import (
	"context"
	"slices"
	"testing"
	"time"
)

// samples are figures of one kind, of which percentiles are reported.
type samples []float64

// time adds what f takes, in milliseconds.
func (s *samples) time(f func()) {
	start := time.Now()
	f()
	s.add(time.Since(start))
}

func (s *samples) add(d time.Duration) { *s = append(*s, float64(d.Nanoseconds())/1e6) }

func (s samples) percentile(b *testing.B, p float64) float64 {
	b.Helper()
	if len(s) == 0 {
		b.Fatal("nothing was measured")
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[int(p/100*float64(len(sorted)-1)+0.5)]
}

func (s samples) median(b *testing.B) float64 { return s.percentile(b, 50) }

// withoutMean leaves out what the benchmark took as a whole, which says nothing.
func withoutMean(b *testing.B) { b.ReportMetric(0, "ns/op") }

func bounded(b *testing.B, d time.Duration) context.Context {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), d)
	b.Cleanup(cancel)
	return ctx
}
