package bench

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestLatencyCountsFromTheIntendedTime stalls a server once, for 300 ms. With
// one client the requests that were due meanwhile wait with it: their latency
// must say so.
func TestLatencyCountsFromTheIntendedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int64
		dial := pipes(func(conn net.Conn, _ int) {
			answering(conn, func(int) string {
				if requests.Add(1) == 11 {
					time.Sleep(300 * time.Millisecond)
				}
				return okKeep
			})
		})
		l := Load{Kind: KeepAlive, Dial: dial, Clients: 1, MaxClients: 1, Rate: 100, Duration: time.Second, Tolerance: 200 * time.Millisecond}
		r := mustRun(t, l)
		wantAllOK(t, r, 100)
		// Due 10, 20 ... 290 ms after the stalled one, and that itself. (The
		// peek of a pipe takes a millisecond of each of those that follow.)
		if n := r.Latency.Above(9 * time.Millisecond); n < 30 || n > 34 {
			t.Errorf("%d requests saw the stall, want about 30", n)
		}
		if n := r.Service.Above(9 * time.Millisecond); n != 1 {
			t.Errorf("%d requests were slow from their own start, want 1", n)
		}
		if p := r.Latency.Max(); p < 300*time.Millisecond || p > 302*time.Millisecond {
			t.Errorf("longest latency %v, want 300 ms", p)
		}
		if r.Late < 9 || r.Late > 12 || r.RateMet || r.MaxLate < 289*time.Millisecond || r.MaxLate > 292*time.Millisecond {
			t.Errorf("%d requests late by at most %v, rate met %v; want about 10, 291 ms, false", r.Late, r.MaxLate, r.RateMet)
		}
	})
}

// TestConstantRateAddsClients keeps the rate through the same stall, because
// further clients may connect.
func TestConstantRateAddsClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := pipes(func(conn net.Conn, n int) {
			answering(conn, func(int) string {
				if n >= 50 && n < 80 {
					time.Sleep(300 * time.Millisecond)
				}
				return okClose
			})
		})
		r := mustRun(t, Load{Kind: PerRequest, Dial: dial, Clients: 1, Rate: 100, Duration: time.Second})
		wantAllOK(t, r, 100)
		if !r.RateMet || r.Late != 0 || r.Intended != 100 || r.OfferedRate != 100 {
			t.Errorf("rate met %v, %d late, %d intended, %g offered", r.RateMet, r.Late, r.Intended, r.OfferedRate)
		}
		if n := r.Latency.Above(290 * time.Millisecond); n != 30 {
			t.Errorf("%d requests took 300 ms, want 30", n)
		}
	})
}

func TestRateNotMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := pipes(func(conn net.Conn, _ int) {
			answering(conn, func(int) string { time.Sleep(100 * time.Millisecond); return okClose })
		})
		r := mustRun(t, Load{Kind: PerRequest, Dial: dial, Clients: 1, MaxClients: 2, Rate: 100, Duration: time.Second})
		if r.RateMet || r.Intended != 100 || r.Sent > 30 || r.AchievedRate > 25 {
			t.Errorf("rate met %v: %d of %d sent, %g/s", r.RateMet, r.Sent, r.Intended, r.AchievedRate)
		}
	})
}

// TestLastRequestsMayBeLate stalls at the end: what is due before the end is
// sent, if it is within the tolerance.
func TestLastRequestsMayBeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := pipes(func(conn net.Conn, n int) {
			answering(conn, func(int) string {
				if n == 95 {
					time.Sleep(100 * time.Millisecond)
				}
				return okClose
			})
		})
		r := mustRun(t, Load{Kind: PerRequest, Dial: dial, Clients: 1, MaxClients: 1, Rate: 100, Duration: time.Second})
		wantAllOK(t, r, 100)
		if !r.RateMet || r.MaxLate < 89*time.Millisecond {
			t.Errorf("rate met %v, late by %v", r.RateMet, r.MaxLate)
		}
	})
}

// TestRealRate runs 500 requests a second against a real server. Only counts
// are checked: the machine may be slow.
func TestRealRate(t *testing.T) {
	s := serve(t, func(conn *net.TCPConn, _ int) {
		answering(conn, func(int) string { io.WriteString(conn, okClose); return "" })
	})
	var seen atomic.Int64
	r := mustRun(t, Load{
		Kind: PerRequest, Addr: s.addr, Rate: 500, Duration: 500 * time.Millisecond, Tolerance: 10 * time.Second,
		Progress:      func(s Snapshot) { seen.Store(int64(s.Sent)) },
		ProgressEvery: 50 * time.Millisecond,
	})
	wantAllOK(t, r, 250)
	if s.accepted() != 250 || !r.RateMet || seen.Load() == 0 {
		t.Errorf("%d connections, rate met %v, progress saw %d", s.accepted(), r.RateMet, seen.Load())
	}
}

// A load that is ended early is not blamed for the request that was due just then.
func TestIntendedWhenEndedEarly(t *testing.T) {
	start := time.Now()
	for stopped, want := range map[time.Duration]int{
		2900 * time.Millisecond: 58,
		2901 * time.Millisecond: 58, // the 59th is due at 2.9 s
		2911 * time.Millisecond: 59,
		9 * time.Second:         100, // Max
	} {
		r := &run{load: &Load{Rate: 20, Tolerance: 10 * time.Millisecond, Max: 100}, start: start, sent: 58}
		if got := r.intended(start.Add(stopped)); got != want {
			t.Errorf("ended at %v: %d intended, want %d", stopped, got, want)
		}
	}
}
