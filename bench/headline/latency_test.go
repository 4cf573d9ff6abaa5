package headline

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
)

// A start of half a second costs nobody anything: the distribution of latencies
// with reloads is that without, since nobody ever waits for a start.
func TestSlowStartsCostNoLatency(t *testing.T) {
	b := binaries(t)
	const start = 500 * time.Millisecond
	s := subject{name: "slow start", run: []string{"--", b.Daemon, "-style", "plain", "-start", start.String()}}
	h := s.hold(t, b, rig.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := h.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	load := func(name string) []bench.Load {
		return []bench.Load{{Name: name, Kind: bench.PerRequest, Rate: 300, Addr: st.Addr("http")}}
	}
	quiet := during(t, ctx, load("without"), func() { pass(ctx, 5*time.Second) })[0]
	busy := during(t, ctx, load("with reloads"), func() { reloadAll(t, ctx, h, 8) })[0]
	var table strings.Builder
	bench.Table(&table, quiet, busy)
	t.Logf("8 reloads of a daemon that starts in %s:\n%s", start, &table)
	// Were a start waited for, most requests would take as long as that.
	limit := quiet.Latency.Max() + start/2
	if late := busy.Latency.Above(limit); late*100 > int64(busy.Sent) {
		t.Errorf("%d of %d requests took longer than %s", late, busy.Sent, limit)
	}
	if busy.Failed() > 0 || !busy.RateMet {
		t.Errorf("%d failed, rate met: %v", busy.Failed(), busy.RateMet)
	}
}

func pass(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
