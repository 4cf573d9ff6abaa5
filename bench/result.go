package bench

import (
	"cmp"
	"slices"
	"time"
)

const (
	maxListed      = 500 // failures that a result lists one by one
	maxExamples    = 3   // errors it quotes for each class
	maxGenerations = 500 // generations it tells apart
	enoughInTime   = 0.99
)

// Result is what the clients of a load saw. Sent is OK and all Failures
// together: every request that was begun counts once. The JSON names are
// stable; durations there are nanoseconds.
type Result struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"` // "mixed" when merged from several

	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"` // the last answer

	// Intended is how many requests were due; in a closed loop, Sent.
	Intended int `json:"intended"`
	Sent     int `json:"sent"`
	OK       int `json:"ok"`
	// Failures counts the requests that failed, by class.
	Failures map[Class]int `json:"failures"`
	// OnReused counts those of Failures that met a connection which had
	// served before, where HTTP lets a server close at any time: a client may
	// repeat a GET then (RFC 9110 9.2.2), this one never does.
	OnReused map[Class]int `json:"on_reused"`
	// Listed are the failures one by one, at least the first ones.
	Listed []Failure `json:"listed"`

	// Reconnects counts kept connections that the server closed with nothing
	// on them, IdleResets those it reset. Neither is a failure; an idle Echo
	// connection that is reset is one and not counted here.
	Reconnects int `json:"reconnects"`
	IdleResets int `json:"idle_resets"`
	// Unframed counts answers without Content-Length or chunks among OK: had
	// they been cut, nobody could tell.
	Unframed int `json:"unframed"`
	// Generations counts the answers of each generation that named itself.
	Generations map[string]int `json:"generations"`

	// Latency is that of the OK requests, from the time at which they were
	// due to the last byte; Service is that from the time at which they were
	// in fact begun. At a constant rate the first is what a client sees, the
	// difference is waiting for a free client or processor.
	Latency *Latency `json:"latency"`
	Service *Latency `json:"service"`
	// LongestGap is the longest time between two successive successes, with
	// the start of the run as the first and its end as the last.
	LongestGap time.Duration `json:"longest_gap_ns"`

	// OfferedRate is what was asked for, 0 in a closed loop; AchievedRate is
	// OK over the time from Started to Finished. Both are requests a second.
	OfferedRate  float64 `json:"offered_rate"`
	AchievedRate float64 `json:"achieved_rate"`
	// RateMet says that at least 99 % of the intended requests were begun
	// within the load's tolerance of their time, and at least one was sent:
	// without it a result proves nothing about the rate.
	RateMet bool `json:"rate_met"`
	// Late counts requests begun later than that; MaxLate is the worst delay.
	Late    int           `json:"late"`
	MaxLate time.Duration `json:"max_late_ns"`
}

// Failure is one failed request.
type Failure struct {
	Class Class `json:"class"`
	// At is when it failed, Begun when it was begun, from Result.Started.
	At    time.Duration `json:"at_ns"`
	Begun time.Duration `json:"begun_ns"`
	// OnReused says that the connection had served before.
	OnReused bool `json:"on_reused,omitempty"`
	// Error is given for the first few of each class.
	Error string `json:"error,omitempty"`
}

// Snapshot is what Progress is told during a run.
type Snapshot struct {
	Elapsed time.Duration `json:"elapsed_ns"`
	Sent    int           `json:"sent"` // ended ones; those in flight follow
	OK      int           `json:"ok"`
	Failed  int           `json:"failed"`
}

func newResult(name string, kind Kind, started time.Time) *Result {
	return &Result{
		Name: name, Kind: kind, Started: started, Finished: started,
		Failures: map[Class]int{}, OnReused: map[Class]int{}, Generations: map[string]int{},
		Latency: &Latency{}, Service: &Latency{},
	}
}

// Failed is the number of requests that failed.
func (r *Result) Failed() int {
	n := 0
	for _, count := range r.Failures {
		n += count
	}
	return n
}

// finish computes what needs the whole.
func (r *Result) finish(l *Load, intended int) {
	r.Intended = intended
	r.OfferedRate = l.Rate
	r.setRates()
}

func (r *Result) setRates() {
	if span := r.Finished.Sub(r.Started).Seconds(); span > 0 {
		r.AchievedRate = float64(r.OK) / span
	}
	r.RateMet = r.Sent > 0 && float64(r.Sent-r.Late) >= enoughInTime*float64(r.Intended)
}

// Merge sums results of loads that ran side by side. Failures are listed by
// time from the earliest start; LongestGap is the longest that any one of them
// saw; RateMet needs all. Nil results are left out, and none is changed.
func Merge(name string, results ...*Result) *Result {
	results = slices.DeleteFunc(slices.Clone(results), func(r *Result) bool { return r == nil })
	if len(results) == 0 {
		return newResult(name, "", time.Time{})
	}
	first := slices.MinFunc(results, func(a, b *Result) int { return a.Started.Compare(b.Started) })
	sum := newResult(name, results[0].Kind, first.Started)
	met := true
	for _, r := range results {
		sum.add(r)
		met = met && r.RateMet
	}
	slices.SortStableFunc(sum.Listed, func(a, b Failure) int { return cmp.Compare(a.At, b.At) })
	sum.setRates()
	sum.RateMet = met
	return sum
}

func (r *Result) add(other *Result) {
	if r.Kind != other.Kind {
		r.Kind = "mixed"
	}
	if other.Finished.After(r.Finished) {
		r.Finished = other.Finished
	}
	r.Intended += other.Intended
	r.Sent += other.Sent
	r.OK += other.OK
	r.Reconnects += other.Reconnects
	r.IdleResets += other.IdleResets
	r.Unframed += other.Unframed
	r.Late += other.Late
	r.OfferedRate += other.OfferedRate
	r.MaxLate = max(r.MaxLate, other.MaxLate)
	r.LongestGap = max(r.LongestGap, other.LongestGap)
	r.Latency.Merge(other.Latency)
	r.Service.Merge(other.Service)
	addCounts(r.Failures, other.Failures)
	addCounts(r.OnReused, other.OnReused)
	addCounts(r.Generations, other.Generations)
	shift := other.Started.Sub(r.Started)
	for _, f := range other.Listed {
		f.At += shift
		f.Begun += shift
		r.Listed = append(r.Listed, f)
	}
}

func addCounts[K comparable](to, from map[K]int) {
	for k, n := range from {
		to[k] += n
	}
}
