package headline

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench/rig"
)

// details are what `gapless status -o json` says beyond what [rig.Status] has of it.
type details struct {
	Crashes     int `json:"crashes"`
	Relayed     int `json:"relayed"`
	Generations []struct {
		Number    int       `json:"generation"`
		State     string    `json:"state"`
		Delivery  string    `json:"delivery"`
		Failure   string    `json:"failure"`
		Exit      string    `json:"exit"`
		Started   time.Time `json:"started"`
		Ready     time.Time `json:"ready"`
		Settled   time.Time `json:"settled"`
		Signalled time.Time `json:"signalled"`
		Ended     time.Time `json:"ended"`
	} `json:"generations"`
	Measured []struct {
		Generation int `json:"generation"`
		Queue      int `json:"queue"`
		QueueLimit int `json:"queue_limit"`
	} `json:"measured"`
}

func detailsOf(t *testing.T, ctx context.Context, h *rig.Holder) (d details) {
	t.Helper()
	out, err := h.Gapless(ctx, "status", h.Name, "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &d)
	}
	if err != nil {
		t.Fatalf("can't read the status: %v\n%s", err, out)
	}
	return d
}

// untilDetails waits until they are as they should be. Its context is the deadline.
func untilDetails(t *testing.T, ctx context.Context, h *rig.Holder, what string, good func(details) bool) details {
	t.Helper()
	for {
		d := detailsOf(t, ctx, h)
		if good(d) {
			return d
		}
		if ctx.Err() != nil {
			t.Fatalf("%s: not in time: %+v", what, d)
		}
		pass(ctx, 20*time.Millisecond)
	}
}

// alone: whoever is not live has ended.
func (d details) alone() bool {
	for _, g := range d.Generations {
		if g.State != "live" && g.Ended.IsZero() {
			return false
		}
	}
	return len(d.Generations) > 0
}

// settled: nothing is on its way any more to whoever is not live.
func (d details) settled() bool {
	for _, g := range d.Generations {
		if g.State != "live" && g.Settled.IsZero() {
			return false
		}
	}
	return true
}

// queue of a generation's listeners: who waits in it, and how many can.
func (d details) queue(generation int) (waiting, limit int) {
	for _, m := range d.Measured {
		if m.Generation == generation {
			return m.Queue, m.QueueLimit
		}
	}
	return 0, 0
}
