package bench

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// failurePause is how long a client of a closed loop waits after a failure.
// Without it the clients of a dead server would count tens of thousands of
// refusals a second, and leave it no processor to come back with.
const failurePause = 10 * time.Millisecond

// job is a request to be sent: at due, or at once if that is zero.
type job struct{ due time.Time }

// outcome is what became of a job. due is when it should have been sent.
type outcome struct {
	due, began, done time.Time
	fault            *fault
	generation       string
	reused           bool // on a connection that had served before
	reconnected      bool // the kept connection had been closed, cleanly
	idleReset        bool // ... or reset, with no request on it
	unframed         bool
}

// run is one Run: dispatch hands out jobs, clients do them, collect counts.
type run struct {
	load     *Load
	to       netip.AddrPort
	ctx      context.Context // ends the sending
	start    time.Time
	jobs     chan job // not buffered: a job taken is a request begun
	outcomes chan outcome
	clients  sync.WaitGroup
	busy     atomic.Int64 // clients with a job, those that linger too
	spawned  int          // owned by dispatch
	sent     int          // owned by dispatch
}

// Run lets the clients loose until Duration or Max is reached or ctx ends,
// whichever is first, waits for what is in flight, and returns what became of
// every request. What the server does wrong is in the Result; an error means
// that the load could not be run at all. Run may be called any number of
// times, also at once.
func (l Load) Run(ctx context.Context) (*Result, error) {
	to, err := l.prepare(ctx)
	if err != nil {
		return nil, err
	}
	sending, cancel := l.sendingContext(ctx)
	defer cancel()
	r := &run{
		load: &l, to: to, ctx: sending, start: time.Now(),
		jobs: make(chan job), outcomes: make(chan outcome, 1024),
	}
	collected := make(chan *Result, 1)
	go r.collect(collected)
	for range l.Clients {
		r.spawn(nil)
	}
	r.dispatch()
	stopped := time.Now()
	cancel() // wakes the clients that think
	close(r.jobs)
	r.clients.Wait()
	close(r.outcomes)
	result := <-collected
	result.finish(&l, r.intended(stopped))
	return result, nil
}

// sendingContext ends when requests are no longer sent. A constant rate counts
// its requests instead, and gets the tolerance on top so that the last one is
// not lost to a coarse timer.
func (l *Load) sendingContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if l.Duration <= 0 {
		return context.WithCancel(ctx)
	}
	d := l.Duration
	if l.Rate > 0 {
		d += l.Tolerance
	}
	return context.WithTimeout(ctx, d)
}

// dispatch hands out the jobs, in time if there is a rate.
func (r *run) dispatch() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for r.load.Max == 0 || r.sent < r.load.Max {
		var next job
		if r.load.Rate > 0 {
			next.due = r.start.Add(r.offset(r.sent))
			if !r.wait(timer, next.due) {
				return
			}
		}
		if !r.hand(next) {
			return
		}
		r.sent++
	}
}

// offset is when request i is due, from the start.
func (r *run) offset(i int) time.Duration {
	return time.Duration(float64(i) / r.load.Rate * float64(time.Second))
}

// wait returns at the given time, or false when the sending has ended.
func (r *run) wait(timer *time.Timer, until time.Time) bool {
	left := time.Until(until)
	if left <= 0 {
		return true
	}
	timer.Reset(left)
	select {
	case <-timer.C:
		return true
	case <-r.ctx.Done():
		return false
	}
}

// hand gives the job to an idle client (to the one that has been idle
// longest, which makes kept connections take turns), to a new one, or waits.
func (r *run) hand(next job) bool {
	if r.ctx.Err() != nil {
		return false
	}
	if r.load.Rate > 0 && int(r.busy.Load()) >= r.spawned && r.spawned < r.load.MaxClients {
		r.busy.Add(1)
		r.spawn(&next)
		return true
	}
	select {
	case r.jobs <- next:
		r.busy.Add(1)
		return true
	case <-r.ctx.Done():
		return false
	}
}

// intended is how many requests should have begun when the sending ended: one that
// was due just then could still have begun in time.
func (r *run) intended(stopped time.Time) int {
	if r.load.Rate <= 0 {
		return r.sent
	}
	due := int(math.Ceil((stopped.Sub(r.start) - r.load.Tolerance).Seconds() * r.load.Rate))
	if r.load.Max > 0 {
		due = min(due, r.load.Max)
	}
	return max(due, r.sent)
}

// spawn starts a client; its first job may be given.
func (r *run) spawn(first *job) {
	c := &client{load: r.load, to: r.to, request: requestBytes(r.load), id: r.spawned}
	r.spawned++
	r.clients.Go(func() { r.serve(c, first) })
}

// serve is the life of a client.
func (r *run) serve(c *client, first *job) {
	defer c.close()
	if first != nil {
		r.do(c, *first)
	}
	for next := range r.jobs {
		r.do(c, next)
	}
}

func (r *run) do(c *client, j job) {
	o := outcome{due: j.due, began: time.Now()}
	if o.due.IsZero() {
		o.due = o.began
	}
	o.fault = c.exchange(r.ctx, &o)
	o.done = time.Now()
	r.outcomes <- o
	c.linger()
	r.busy.Add(-1)
	if r.load.Rate <= 0 {
		r.think(o.fault != nil)
	}
}

// think keeps a client of a closed loop from its next request.
func (r *run) think(failed bool) {
	d := r.load.Think
	if failed {
		d = max(d, failurePause)
	}
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ctx.Done():
	}
}

// collect alone writes the result; it gives it away when the last client has
// ended.
func (r *run) collect(done chan<- *Result) {
	result := newResult(r.load.Name, r.load.Kind, r.start)
	t := tally{result: result, load: r.load, lastSuccess: r.start}
	ticker := time.NewTicker(r.load.ProgressEvery)
	defer ticker.Stop()
	for {
		select {
		case o, more := <-r.outcomes:
			if !more {
				t.close()
				done <- result
				return
			}
			t.add(&o)
		case <-ticker.C:
			t.report()
		}
	}
}

// String says what the load does, for tests and logs.
func (l Load) String() string {
	if l.Rate > 0 {
		return fmt.Sprintf("%s at %g/s to %s", l.Kind, l.Rate, l.Addr)
	}
	return fmt.Sprintf("%s from %d clients to %s", l.Kind, l.Clients, l.Addr)
}
