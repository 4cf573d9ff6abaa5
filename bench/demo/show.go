package main

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gapless-dev/gapless/bench"
)

const (
	every = time.Second // from one replacement to the next
	// tail is how long the load goes on after the last: that one has to answer too.
	tail = 1200 * time.Millisecond
)

// row is what the clients of one load saw.
type row struct {
	server, verb string
	gapless      bool
	*bench.Result
}

// show replaces a server again and again under load.
func show(ctx context.Context, out *screen, s server, m manner) ([]row, error) {
	out.begin(s, m)
	sending, stop := context.WithCancel(ctx)
	defer stop()
	c := newCrowd(sending, s.loads, m.addr)
	err := replaceAll(ctx, out, s.times, m, c)
	stop()
	results, loadErr := c.wait()
	if err := errors.Join(err, loadErr, ctx.Err()); err != nil {
		return nil, err
	}
	out.end(s, c)
	var rows []row
	for _, r := range results {
		rows = append(rows, row{server: s.name, verb: m.verb, gapless: m.gapless, Result: r})
	}
	return rows, nil
}

func replaceAll(ctx context.Context, out *screen, times int, m manner, c *crowd) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := range times {
		if !await(ctx, tick.C) {
			return nil
		}
		if err := m.replace(ctx); err != nil {
			return err
		}
		out.progress(m, i+1, times, c)
	}
	await(ctx, time.After(tail))
	return nil
}

func await(ctx context.Context, c <-chan time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-c:
		return true
	}
}

// crowd is all clients of a server.
type crowd struct {
	wg      sync.WaitGroup
	counts  []counter
	results []*bench.Result
	errs    []error
}

// counter is how far one load has come.
type counter struct{ sent, failed atomic.Int64 }

// newCrowd begins to send, until ctx ends.
func newCrowd(ctx context.Context, loads []bench.Load, addr string) *crowd {
	c := &crowd{counts: make([]counter, len(loads)), results: make([]*bench.Result, len(loads)), errs: make([]error, len(loads))}
	for i, l := range loads {
		l.Addr, l.Duration, l.LocalAddrs = addr, longest, sources()
		l.ProgressEvery = 50 * time.Millisecond
		l.Progress = func(s bench.Snapshot) {
			c.counts[i].sent.Store(int64(s.Sent))
			c.counts[i].failed.Store(int64(s.Failed))
		}
		c.wg.Go(func() { c.results[i], c.errs[i] = l.Run(ctx) })
	}
	return c
}

// sources: from the server's own address a client could connect to itself while
// nobody listens, if it is given the server's port. Only Linux has all of 127/8.
func sources() []netip.Addr {
	if runtime.GOOS != "linux" {
		return nil
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.2")}
}

func (c *crowd) wait() ([]*bench.Result, error) {
	c.wg.Wait()
	return c.results, errors.Join(c.errs...)
}

// soFar is up to 50 ms old.
func (c *crowd) soFar() (sent, failed int64) {
	for i := range c.counts {
		sent += c.counts[i].sent.Load()
		failed += c.counts[i].failed.Load()
	}
	return sent, failed
}
