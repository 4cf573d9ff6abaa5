package bench

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latency is a distribution of times, from a microsecond to ten minutes with
// three significant digits; what lies outside counts as the nearest of these.
// The zero value is empty and ready to use; a nil *Latency is empty too, but
// takes nothing. It is not safe for use by several goroutines at once.
type Latency struct {
	histogram *hdrhistogram.Histogram // microseconds; nil: empty
}

const longestLatency = 10 * time.Minute

func (l *Latency) make() *hdrhistogram.Histogram {
	if l.histogram == nil {
		l.histogram = hdrhistogram.New(1, longestLatency.Microseconds(), 3)
	}
	return l.histogram
}

// Record adds one time.
func (l *Latency) Record(d time.Duration) {
	// Rounded up: 0 is no time that a request may take.
	us := (min(max(d, 1), longestLatency) + time.Microsecond - 1) / time.Microsecond
	_ = l.make().RecordValue(int64(us)) // fails only out of range
}

// Merge adds the times of other, which it does not change.
func (l *Latency) Merge(other *Latency) {
	if other != nil && other.histogram != nil {
		l.make().Merge(other.histogram)
	}
}

// Count is how many times were recorded.
func (l *Latency) Count() int64 {
	if l == nil || l.histogram == nil {
		return 0
	}
	return l.histogram.TotalCount()
}

// Percentile is the time that p percent of the requests did not exceed, to
// three digits; 100 gives the maximum, 0 requests give 0.
func (l *Latency) Percentile(p float64) time.Duration {
	if l.Count() == 0 {
		return 0
	}
	return time.Duration(l.histogram.ValueAtPercentile(p)) * time.Microsecond
}

// P50 is the median.
func (l *Latency) P50() time.Duration { return l.Percentile(50) }

// P99 is the time that 99 % did not exceed.
func (l *Latency) P99() time.Duration { return l.Percentile(99) }

// P999 is the time that 99.9 % did not exceed.
func (l *Latency) P999() time.Duration { return l.Percentile(99.9) }

// Max is the longest time.
func (l *Latency) Max() time.Duration { return l.Percentile(100) }

// Above is how many of the recorded times exceed d.
func (l *Latency) Above(d time.Duration) int64 {
	if l.Count() == 0 {
		return 0
	}
	var n int64
	for _, bar := range l.histogram.Distribution() {
		if bar.From > d.Microseconds() {
			n += bar.Count
		}
	}
	return n
}

// latencyJSON carries the numbers for people and the whole for Merge.
type latencyJSON struct {
	Count int64  `json:"count"`
	P50   int64  `json:"p50_us"`
	P99   int64  `json:"p99_us"`
	P999  int64  `json:"p999_us"`
	Max   int64  `json:"max_us"`
	HDR   string `json:"hdr,omitempty"` // HdrHistogram V2, deflated, base64
}

// MarshalJSON writes the usual percentiles in microseconds and the whole
// histogram in HdrHistogram's own form.
func (l *Latency) MarshalJSON() ([]byte, error) {
	form := latencyJSON{
		Count: l.Count(),
		P50:   l.P50().Microseconds(), P99: l.P99().Microseconds(),
		P999: l.P999().Microseconds(), Max: l.Max().Microseconds(),
	}
	if form.Count > 0 {
		whole, err := l.histogram.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
		if err != nil {
			return nil, fmt.Errorf("can't encode histogram: %w", err)
		}
		form.HDR = string(whole)
	}
	return json.Marshal(form)
}

// UnmarshalJSON reads what MarshalJSON wrote; only the histogram in it counts.
func (l *Latency) UnmarshalJSON(text []byte) error {
	var form latencyJSON
	if err := json.Unmarshal(text, &form); err != nil {
		return fmt.Errorf("can't read latency: %w", err)
	}
	l.histogram = nil
	if form.HDR == "" {
		return nil
	}
	whole, err := hdrhistogram.Decode([]byte(form.HDR))
	if err != nil {
		return fmt.Errorf("can't decode histogram: %w", err)
	}
	// Into our own shape: another might not merge.
	if lost := l.make().Merge(whole); lost > 0 {
		l.histogram = nil
		return fmt.Errorf("can't decode histogram: %d times out of range", lost)
	}
	return nil
}
