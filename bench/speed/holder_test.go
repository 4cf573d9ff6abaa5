package speed

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench/rig"
	"github.com/gapless-dev/gapless/reload"
)

// holder is the built command, driven from outside until the benchmark ends.
type holder struct {
	*rig.Holder
	b    *testing.B
	ctx  context.Context
	live int
	took samples // of each reload, as the holder itself counts
}

func hold(b *testing.B, args ...string) *holder {
	b.Helper()
	ctx := bounded(b, 3*time.Minute)
	h, err := built.Run(ctx, rig.Options{Name: "web", Args: args})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := h.End(); err != nil {
			b.Error(err)
		}
		if b.Failed() {
			lines := strings.Split(h.Log(), "\n")
			b.Logf("the end of the holder's log:\n%s", strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	})
	return &holder{Holder: h, b: b, ctx: ctx, live: 1}
}

// ask is a verb, whose failure is the benchmark's.
func (h *holder) ask(args ...string) string {
	h.b.Helper()
	out, err := h.Gapless(h.ctx, args...)
	if err != nil {
		h.b.Fatal(err)
	}
	return out
}

func (h *holder) reload() {
	var r reload.Result
	if err := json.Unmarshal([]byte(h.ask("reload", h.Name, "-o", "json")), &r); err != nil {
		h.b.Fatal(err)
	}
	if h.live++; r.Generation != h.live {
		h.b.Fatalf("generation %d is live, not %d", r.Generation, h.live)
	}
	h.took.add(r.Took)
}

func (h *holder) status() rig.Status {
	h.b.Helper()
	st, err := h.Status(h.ctx)
	if err != nil {
		h.b.Fatal(err)
	}
	return st
}

func (h *holder) addr() string { return h.status().Addr("http") }

// quiet waits until only the live generation is left.
func (h *holder) quiet() {
	h.b.Helper()
	for {
		running := 0
		for _, g := range h.status().Generations {
			if g.State != "gone" && g.State != "failed" {
				running++
			}
		}
		if running == 1 {
			return
		}
		select {
		case <-h.ctx.Done():
			h.b.Fatalf("%d generations still run", running)
		case <-time.After(20 * time.Millisecond): // between two looks
		}
	}
}

// events are the last ones of a kind.
func (h *holder) events(kind string) []reload.Event {
	h.b.Helper()
	var all []reload.Event
	for in := json.NewDecoder(strings.NewReader(h.ask("events", h.Name, "-o", "json"))); ; {
		var e reload.Event
		err := in.Decode(&e)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			h.b.Fatal(err)
		}
		if e.Kind == kind {
			all = append(all, e)
		}
	}
}
