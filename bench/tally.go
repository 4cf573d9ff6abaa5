package bench

import "time"

// tally writes a result, one outcome after the other. It belongs to collect.
type tally struct {
	result      *Result
	load        *Load
	lastSuccess time.Time
}

func (t *tally) add(o *outcome) {
	r := t.result
	r.Sent++
	if o.done.After(r.Finished) {
		r.Finished = o.done
	}
	if o.reconnected {
		r.Reconnects++
	}
	if o.idleReset {
		r.IdleResets++
	}
	t.addDelay(o.began.Sub(o.due))
	t.addGeneration(o.generation)
	if o.fault != nil {
		t.addFailure(o)
		return
	}
	t.addSuccess(o)
}

func (t *tally) addDelay(late time.Duration) {
	t.result.MaxLate = max(t.result.MaxLate, late)
	if late > t.load.Tolerance {
		t.result.Late++
	}
}

// addGeneration counts who answered, rightly or wrongly. A server that names
// itself anew each time must not fill our memory.
func (t *tally) addGeneration(name string) {
	if name == "" {
		return
	}
	g := t.result.Generations
	if _, known := g[name]; !known && len(g) >= maxGenerations {
		name = "others"
	}
	g[name]++
}

func (t *tally) addFailure(o *outcome) {
	r, class := t.result, o.fault.class
	r.Failures[class]++
	if o.reused {
		r.OnReused[class]++
	}
	quote := r.Failures[class] <= maxExamples
	if len(r.Listed) >= maxListed && !quote {
		return
	}
	f := Failure{Class: class, At: o.done.Sub(r.Started), Begun: o.began.Sub(r.Started), OnReused: o.reused}
	if quote {
		f.Error = o.fault.err.Error()
	}
	r.Listed = append(r.Listed, f)
}

func (t *tally) addSuccess(o *outcome) {
	r := t.result
	r.OK++
	if o.unframed {
		r.Unframed++
	}
	r.Latency.Record(o.done.Sub(o.due) - t.load.Pause)
	r.Service.Record(o.done.Sub(o.began) - t.load.Pause)
	// Outcomes come from many clients and may be microseconds out of order.
	if o.done.After(t.lastSuccess) {
		r.LongestGap = max(r.LongestGap, o.done.Sub(t.lastSuccess))
		t.lastSuccess = o.done
	}
}

// close ends the last gap, at the last outcome.
func (t *tally) close() {
	t.result.LongestGap = max(t.result.LongestGap, t.result.Finished.Sub(t.lastSuccess))
}

func (t *tally) report() {
	if t.load.Progress == nil {
		return
	}
	t.load.Progress(Snapshot{
		Elapsed: time.Since(t.result.Started),
		Sent:    t.result.Sent,
		OK:      t.result.OK,
		Failed:  t.result.Sent - t.result.OK,
	})
}
