package headline

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
)

// heldDrain is the longest that what a daemon holds is waited for in these tests.
const heldDrain = 2 * time.Second

// A daemon that accepts one client, and nobody else until that has gone, has the others
// wait in its queue. They are served though it is replaced: by it, once its client goes.
func TestADaemonThatHoldsOneClientServesItsQueue(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := bound(t, []string{"--drain-timeout", "1h"}, awkwardDaemon(t), "-one-by-one")
	h := s.hold(t, binaries(t), rig.Options{})
	results := during(t, ctx, addressed(t, ctx, h, patient()), func() {
		held, _ := holdsEach(t, ctx, h, s.address)
		untilDetails(t, ctx, h, "all to have settled", details.settled)
		for _, one := range held {
			one.asks(t, one.by) // it is connected to the old one, and served as before
			one.Close()
		}
	})
	d := untilDetails(t, ctx, h, "the others to be gone", details.alone)
	judgeAwkward(t, results, awkwardReloads+1)
	awkward{}.judgeGenerations(t, d)
	notRelayed(t, h)
}

// If the client stays for longer than it is waited for, it is cut then, and not before;
// who waited behind it is handed to the live generation, and counted.
func TestADaemonThatHoldsOneClientForTooLong(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := bound(t, []string{"--drain-timeout", heldDrain.String()}, awkwardDaemon(t), "-one-by-one")
	h := s.hold(t, binaries(t), rig.Options{})
	var held []*heldClient
	waiting := 0
	results := during(t, ctx, addressed(t, ctx, h, patient()), func() {
		held, waiting = holdsEach(t, ctx, h, s.address)
		for _, one := range held {
			one.untilCut(t, ctx)
		}
	})
	d := untilDetails(t, ctx, h, "the others to be gone", details.alone)
	judgeAwkward(t, results, awkwardReloads+1)
	awkward{}.judgeGenerations(t, d)
	judgeHeld(t, d, held)
	t.Logf("%d clients waited in the queues of the old ones when those were replaced; %d were relayed", waiting, d.Relayed)
	if waiting < queued*awkwardReloads || d.Relayed < waiting {
		t.Errorf("%d clients waited in the queues of the old ones, and %d were relayed", waiting, d.Relayed)
	}
}

func judgeHeld(t *testing.T, d details, held []*heldClient) {
	t.Helper()
	for _, g := range d.Generations {
		i := slices.IndexFunc(held, func(one *heldClient) bool { return one.by == g.Number })
		if i < 0 {
			continue
		}
		if waited := g.Signalled.Sub(g.Settled); waited < heldDrain || held[i].cut.Before(g.Signalled) {
			t.Errorf("generation %d was told to stop %s after it had settled, at %s; its client was cut at %s", g.Number, waited, g.Signalled, held[i].cut)
		}
	}
}

// patient clients wait for as long as it takes.
func patient() bench.Load {
	return bench.Load{Kind: bench.PerRequest, Rate: 50, Timeout: time.Minute}
}

// heldClient is the one that a generation serves.
type heldClient struct {
	net.Conn
	by  int
	cut time.Time
}

// holdsEach has each generation hold a client when it is replaced, and tells how many wait
// in the queues of the old ones then.
func holdsEach(t *testing.T, ctx context.Context, h *rig.Holder, address string) (held []*heldClient, waiting int) {
	t.Helper()
	for n := 1; n <= awkwardReloads; n++ {
		held = append(held, holds(t, ctx, h, address, n))
		if err := h.Reload(ctx); err != nil {
			t.Fatal(err)
		}
		served(t, address, n+1)
		queue, _ := detailsOf(t, ctx, h).queue(n)
		waiting += queue
	}
	return held, waiting
}

// queued is how many are to wait behind a client that is held.
const queued = 3

// holds the n-th generation: a client that it serves and that stays, and others who wait.
func holds(t *testing.T, ctx context.Context, h *rig.Holder, address string, n int) *heldClient {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	one := &heldClient{Conn: c, by: n}
	one.asks(t, n)
	untilDetails(t, ctx, h, "clients to wait", func(d details) bool {
		waiting, _ := d.queue(n)
		return waiting >= queued
	})
	return one
}

// asks something over its connection, for an answer of the n-th generation.
func (c *heldClient) asks(t *testing.T, n int) {
	t.Helper()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: held\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("generation %d does not answer: %v", n, err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatal(err)
	}
	if by := answer.Header.Get("X-Generation"); by != strconv.Itoa(n) {
		t.Fatalf("answered by generation %s, want %d", by, n)
	}
}

// served: who comes now is served by the n-th generation, whatever the one before does.
func served(t *testing.T, address string, n int) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	(&heldClient{Conn: c}).asks(t, n)
}

// untilCut waits for the end of the connection. Its client has asked for nothing, so it is
// a clean one.
func (c *heldClient) untilCut(t *testing.T, ctx context.Context) {
	t.Helper()
	deadline, _ := ctx.Deadline()
	c.SetReadDeadline(deadline)
	_, err := c.Read(make([]byte, 1))
	c.cut = time.Now()
	if errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, io.EOF) {
		t.Errorf("the client that generation %d held: %v", c.by, err)
	}
}
