package bench

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sample(kind Kind, started time.Time) *Result {
	r := newResult(string(kind), kind, started)
	r.Finished = started.Add(time.Second)
	r.Intended, r.Sent, r.OK = 102, 102, 100
	r.Failures[EOF], r.OnReused[EOF] = 2, 1
	r.Listed = []Failure{{Class: EOF, At: 300 * time.Millisecond, Begun: 200 * time.Millisecond, OnReused: true, Error: "EOF"}, {Class: EOF, At: time.Second}}
	r.Generations["1"] = 100
	r.Reconnects, r.IdleResets, r.Unframed, r.Late = 1, 2, 3, 0
	r.MaxLate, r.LongestGap, r.OfferedRate = time.Millisecond, 40*time.Millisecond, 102
	for i := range 100 {
		r.Latency.Record(time.Duration(i+1) * time.Millisecond)
		r.Service.Record(time.Millisecond)
	}
	r.setRates()
	return r
}

func TestMerge(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a, b := sample(PerRequest, start.Add(500*time.Millisecond)), sample(KeepAlive, start)
	b.Generations["2"], b.LongestGap, b.RateMet = 7, time.Second, false
	before, _ := json.Marshal(a)
	m := Merge("both", a, nil, b)
	if after, _ := json.Marshal(a); string(before) != string(after) {
		t.Error("merging changed a part")
	}
	if m.Kind != "mixed" || !m.Started.Equal(start) || m.Finished.Sub(start) != 1500*time.Millisecond {
		t.Errorf("kind %s, from %v to %v", m.Kind, m.Started, m.Finished)
	}
	if m.Sent != 204 || m.OK != 200 || m.Intended != 204 || m.Reconnects != 2 || m.IdleResets != 4 || m.Unframed != 6 {
		t.Errorf("sums %+v", m)
	}
	if diff := cmp.Diff(map[string]int{"1": 200, "2": 7}, m.Generations); diff != "" {
		t.Error(diff)
	}
	if m.Failures[EOF] != 4 || m.OnReused[EOF] != 2 || m.LongestGap != time.Second || m.RateMet || m.OfferedRate != 204 {
		t.Errorf("sums %+v", m)
	}
	var at []time.Duration
	for _, f := range m.Listed {
		at = append(at, f.At/time.Millisecond)
	}
	if diff := cmp.Diff([]time.Duration{300, 800, 1000, 1500}, at); diff != "" {
		t.Error(diff)
	}
	if m.Latency.Count() != 200 || m.Latency.Above(90*time.Millisecond) < 18 {
		t.Errorf("latency of %d, %d above 90 ms", m.Latency.Count(), m.Latency.Above(90*time.Millisecond))
	}
}

func TestGenerationsAreBounded(t *testing.T) {
	tally := tally{result: newResult("", PerRequest, time.Time{})}
	for i := range maxGenerations + 7 {
		tally.addGeneration(strconv.Itoa(i))
	}
	tally.addGeneration("0")
	g := tally.result.Generations
	if len(g) != maxGenerations+1 || g["others"] != 7 || g["0"] != 2 {
		t.Errorf("%d generations, %d others, %d of the first", len(g), g["others"], g["0"])
	}
}

func TestMergeOfNothing(t *testing.T) {
	m := Merge("none", nil)
	m.Failures[EOF]++ // usable
	if m.Sent != 0 || m.RateMet || m.AchievedRate != 0 {
		t.Errorf("%+v", m)
	}
}

// TestResultSurvivesJSON: a load that ran in another process can be merged.
func TestResultSurvivesJSON(t *testing.T) {
	r := sample(PerRequest, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(&back)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), string(again)); diff != "" {
		t.Error(diff)
	}
	if back.Latency.P99() != r.Latency.P99() || back.Latency.Count() != 100 {
		t.Errorf("latency %v of %d", back.Latency.P99(), back.Latency.Count())
	}
}

// TestJSONNames holds the names that programs read.
func TestJSONNames(t *testing.T) {
	text, err := json.Marshal(sample(PerRequest, time.Time{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"name", "kind", "started", "finished", "intended", "sent", "ok", "failures", "on_reused", "listed",
		"reconnects", "idle_resets", "unframed", "generations", "latency", "service", "longest_gap_ns",
		"offered_rate", "achieved_rate", "rate_met", "late", "max_late_ns", "class", "at_ns", "begun_ns", "error",
		"count", "p50_us", "p99_us", "p999_us", "max_us", "hdr",
	} {
		if !strings.Contains(string(text), `"`+name+`":`) {
			t.Errorf("no %q in %s", name, text)
		}
	}
}

func TestTable(t *testing.T) {
	good := sample(PerRequest, time.Time{})
	clear(good.Failures)
	bad := sample(KeepAlive, time.Time{})
	bad.Failures[Refused], bad.RateMet = 1, false
	var b strings.Builder
	if err := Table(&b, good, bad); err != nil {
		t.Fatal(err)
	}
	want := `load         requests  failed  p50   p99   p99.9  max    gap   rate/s      generations  how
per-request  102       0       50ms  99ms  100ms  100ms  40ms  100         1            -
keep-alive   102       3       50ms  99ms  100ms  100ms  40ms  100 of 102  1            1 refused, 2 eof
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestLatency(t *testing.T) {
	var l Latency
	if l.Count() != 0 || l.Max() != 0 || l.Above(0) != 0 || (*Latency)(nil).P50() != 0 {
		t.Error("an empty one is not empty")
	}
	for _, d := range []time.Duration{-time.Second, 0, time.Nanosecond, time.Millisecond, time.Hour} {
		l.Record(d)
	}
	if l.Count() != 5 || l.P50() != time.Microsecond {
		t.Errorf("%d times, median %v", l.Count(), l.P50())
	}
	if worst := l.Max(); worst < 10*time.Minute || worst > 11*time.Minute {
		t.Errorf("longest %v, want the bound of 10 minutes", worst)
	}
}

// FuzzLatencyJSON: whatever is read can be written and read again, the same.
func FuzzLatencyJSON(f *testing.F) {
	var l Latency
	l.Record(time.Millisecond)
	good, err := json.Marshal(&l)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(good))
	f.Add(`{"count":3}`)
	f.Add(`{"hdr":"HISTFAAAAB542pNpmSzMwMDAxAABzFCaEUoz2X+AsADIJALJ"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var first, second Latency
		if first.UnmarshalJSON([]byte(text)) != nil {
			return
		}
		again, err := json.Marshal(&first)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(again, &second); err != nil {
			t.Fatal(err)
		}
		if first.Count() != second.Count() || first.P99() != second.P99() {
			t.Errorf("%d times, p99 %v; read again %d, %v", first.Count(), first.P99(), second.Count(), second.P99())
		}
	})
}
