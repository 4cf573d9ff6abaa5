package bench

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestEndWakesThinkers: nobody waits for a client that has nothing to send.
func TestEndWakesThinkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := pipes(func(conn net.Conn, _ int) { answering(conn, func(int) string { return okClose }) })
		start := time.Now()
		wantAllOK(t, mustRun(t, Load{Kind: PerRequest, Dial: dial, Max: 1, Think: time.Hour}), 1)
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}

func TestLongestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		answer := pipes(func(conn net.Conn, _ int) {
			answering(conn, func(int) string { return okClose })
		})
		dial := func(ctx context.Context) (net.Conn, error) {
			if at := time.Since(start); at > 405*time.Millisecond && at < 795*time.Millisecond {
				return nil, syscall.ECONNREFUSED
			}
			return answer(ctx)
		}
		r := mustRun(t, Load{Kind: PerRequest, Dial: dial, Rate: 100, Duration: time.Second})
		if r.Failures[Refused] != 39 || r.OK != 61 {
			t.Errorf("ok %d, failures %v; want 61 and 39 refused", r.OK, r.Failures)
		}
		if r.LongestGap != 400*time.Millisecond {
			t.Errorf("longest gap %v, want 400 ms", r.LongestGap)
		}
		if first := r.Listed[0]; first.At != 410*time.Millisecond {
			t.Errorf("first failure at %v, want 410 ms", first.At)
		}
	})
}

// TestServerThatNeverReturns counts the time to the end as a gap.
func TestServerThatNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := func(context.Context) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
		r := mustRun(t, Load{Kind: PerRequest, Dial: dial, Clients: 1, Duration: 995 * time.Millisecond})
		wantOnly(t, r, Refused, 100) // one every failurePause, not as fast as can be
		if r.LongestGap < 990*time.Millisecond {
			t.Errorf("longest gap %v, want the whole run", r.LongestGap)
		}
		if n := len(r.Listed); n != 100 {
			t.Errorf("%d listed", n)
		}
	})
}

func TestListIsBounded(t *testing.T) {
	dial := func(context.Context) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
	r := mustRun(t, Load{Kind: PerRequest, Dial: dial, Rate: 1e6, Max: maxListed + 100})
	if r.Failed() != maxListed+100 || len(r.Listed) != maxListed {
		t.Errorf("%d failures, %d listed, want %d", r.Failed(), len(r.Listed), maxListed)
	}
}

// TestEndOfContextFinishesWhatIsInFlight ends the run with requests at the
// server: they are answered, and nothing else is sent.
func TestEndOfContextFinishesWhatIsInFlight(t *testing.T) {
	for _, rate := range []float64{0, 4} {
		synctest.Test(t, func(t *testing.T) {
			answer := make(chan struct{})
			dial := pipes(func(conn net.Conn, _ int) {
				answering(conn, func(int) string { <-answer; return okClose })
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan *Result, 1)
			l := Load{Kind: PerRequest, Dial: dial, Clients: 4, Rate: rate, Duration: time.Hour}
			go func() {
				r, err := l.Run(ctx)
				if err != nil {
					t.Error(err)
				}
				done <- r
			}()
			time.Sleep(900 * time.Millisecond)
			cancel()
			synctest.Wait()
			select {
			case <-done:
				t.Fatal("did not wait for the answers")
			default:
			}
			close(answer)
			r := <-done
			wantAllOK(t, r, 4)
			if r.Intended != 4 || !r.RateMet {
				t.Errorf("%d intended, rate met %v", r.Intended, r.RateMet)
			}
		})
	}
}

func TestTimeoutInFlightAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := pipes(func(conn net.Conn, _ int) { io.Copy(io.Discard, conn) })
		r := mustRun(t, Load{Kind: PerRequest, Dial: dial, Clients: 4, Duration: time.Second})
		wantOnly(t, r, Timeout, 4)
		if took := r.Finished.Sub(r.Started); took != 5*time.Second {
			t.Errorf("took %v, want the timeout of 5 s", took)
		}
	})
}

func TestDialThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err := Load{Kind: PerRequest, Dial: dial, Clients: 1, Max: 1}.Run(ctx)
		if err != nil {
			t.Fatal(err)
		}
		wantOnly(t, r, Timeout, 1)
		if took := r.Finished.Sub(r.Started); took != 5*time.Second {
			t.Errorf("took %v: the end of the run is no failure of the server", took)
		}
	})
}

// TestPause checks that the first byte comes 200 ms after the connection and
// that this wait is nobody's latency.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var first atomic.Int64
		dial := pipes(func(conn net.Conn, _ int) {
			connected := time.Now()
			answering(conn, func(int) string {
				first.Store(int64(time.Since(connected)))
				time.Sleep(10 * time.Millisecond)
				return okClose
			})
		})
		r := mustRun(t, Load{Kind: Pause, Dial: dial, Clients: 2, Max: 4})
		wantAllOK(t, r, 4)
		if wait := time.Duration(first.Load()); wait != 200*time.Millisecond {
			t.Errorf("first byte after %v, want 200 ms", wait)
		}
		if worst := r.Latency.Max(); worst < 10*time.Millisecond || worst > 11*time.Millisecond {
			t.Errorf("latency %v, want 10 ms", worst)
		}
	})
}

func TestClosedInThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := pipes(func(net.Conn, int) {})
		r := mustRun(t, Load{Kind: Pause, Dial: dial, Clients: 1, Max: 1})
		wantOnly(t, r, ResetBefore, 1)
	})
}

// TestServerClosesFirst: a client that closed first would keep its port in
// TIME_WAIT. It waits for the server, but not for ever.
func TestServerClosesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waited atomic.Int64
		dial := pipes(func(conn net.Conn, n int) {
			answering(conn, func(int) string { io.WriteString(conn, okClose); return "" })
			if n == 0 {
				answered := time.Now()
				io.Copy(io.Discard, conn)
				waited.Store(int64(time.Since(answered)))
			}
		})
		r := mustRun(t, Load{Kind: PerRequest, Dial: dial, Clients: 1, Max: 2})
		wantAllOK(t, r, 2)
		if got := time.Duration(waited.Load()); got != lingerTime {
			t.Errorf("the client closed after %v, want %v", got, lingerTime)
		}
		if worst := r.Latency.Max(); worst > time.Millisecond {
			t.Errorf("latency %v includes the wait for the close", worst)
		}
	})
}

func TestGenerations(t *testing.T) {
	named := func(header bool) *server {
		return serve(t, func(conn *net.TCPConn, n int) {
			name := "g" + strconv.Itoa(n%2+1)
			answering(conn, func(int) string {
				if header {
					return "HTTP/1.1 200 OK\r\nX-Generation: " + name + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
				}
				return "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\n" + name + " hello"
			})
		})
	}
	for _, l := range []Load{
		{Kind: PerRequest, Addr: named(true).addr},
		{Kind: PerRequest, Addr: named(false).addr, Identify: FirstWord},
	} {
		l.Max = 10
		r := mustRun(t, l)
		wantAllOK(t, r, 10)
		if r.Generations["g1"] != 5 || r.Generations["g2"] != 5 || len(r.Generations) != 2 {
			t.Errorf("generations %v, want 5 and 5", r.Generations)
		}
	}
}

func TestFirstWord(t *testing.T) {
	for body, want := range map[string]string{
		"": "", "\n": "", "12": "12", "12 hello\n": "12", "12\nhello": "12", " gen-3\r\nx": "gen-3",
	} {
		if got := FirstWord(nil, []byte(body)); got != want {
			t.Errorf("FirstWord(%q) = %q, want %q", body, got, want)
		}
	}
}

func TestSlowHasItsPath(t *testing.T) {
	var inFlight, most atomic.Int64
	var all sync.WaitGroup
	all.Add(32)
	handler := http.NewServeMux()
	handler.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		if now := inFlight.Add(1); now > most.Load() {
			most.Store(now)
		}
		all.Done()
		all.Wait() // returns only when 32 are in flight
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: handler}
	served := make(chan struct{})
	go func() { defer close(served); web.Serve(ln) }()
	defer func() { web.Close(); <-served }()
	wantAllOK(t, mustRun(t, Load{Kind: Slow, Addr: ln.Addr().String(), Max: 32}), 32)
}

func TestLocalAddrs(t *testing.T) {
	var mu sync.Mutex
	from := map[string]int{}
	s := serve(t, func(conn *net.TCPConn, _ int) {
		mu.Lock()
		from[conn.RemoteAddr().(*net.TCPAddr).IP.String()]++
		mu.Unlock()
		answering(conn, func(int) string { return okClose })
	})
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}
	wantAllOK(t, mustRun(t, Load{Kind: PerRequest, Addr: s.addr, LocalAddrs: addrs, Clients: 1, Max: 10}), 10)
	if from["127.0.0.2"] != 5 || from["127.0.0.3"] != 5 {
		t.Errorf("connections came from %v", from)
	}
}

func TestBadLoads(t *testing.T) {
	dial := func(context.Context) (net.Conn, error) { return nil, errors.New("not to be called") }
	for name, l := range map[string]Load{
		"no kind":        {Addr: "127.0.0.1:1", Max: 1},
		"no end":         {Kind: Echo, Addr: "127.0.0.1:1"},
		"no address":     {Kind: Echo, Max: 1},
		"no port":        {Kind: Echo, Addr: "127.0.0.1", Max: 1},
		"negative":       {Kind: Echo, Addr: "127.0.0.1:1", Max: 1, Rate: -1},
		"path":           {Kind: Slow, Addr: "127.0.0.1:1", Max: 1, Path: "/ HTTP/1.1\r\n"},
		"dial and local": {Kind: Slow, Dial: dial, Max: 1, LocalAddrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}},
		"mixed families": {Kind: Slow, Addr: "127.0.0.1:1", Max: 1, LocalAddrs: []netip.Addr{netip.IPv6Loopback()}},
	} {
		if r, err := l.Run(t.Context()); err == nil {
			t.Errorf("%s: ran: %+v", name, r)
		}
	}
}
