package headline

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
)

// reloads is how often each daemon is replaced under each load.
var reloads = rounds(20, 40)

// rounds is how often something is done: in make test, and in make check.
func rounds(test, check int) int {
	if os.Getenv("GAPLESS_LONG") != "" {
		return check
	}
	return test
}

// subject is a daemon under test.
type subject struct {
	name string
	// run are the arguments of `gapless run`, with the command.
	run []string
	// echo: it has an endpoint called so.
	echo      bool
	keepAlive keepAlive
	reloads   int // 0 for as many as of all
	// address is where it wants its listener, if not anywhere.
	address string
}

// keepAlive is what a daemon can promise to clients that keep connections.
type keepAlive int

const (
	never    keepAlive = iota // it closes each connection after its answer
	loses                     // its own stop cuts some of them: measured, not demanded
	lossless                  // it drains them
)

// Whatever the daemon and whatever the load: no request fails, the offered rate is
// met, every generation answers, and no client has to be relayed.
func TestReloadsLoseNothing(t *testing.T) {
	b := binaries(t)
	for _, s := range []subject{
		{name: "library", run: []string{"--", b.Daemon}, echo: true, keepAlive: lossless},
		{name: "plain", run: []string{"--", b.Daemon, "-style", "plain"}, echo: true, keepAlive: loses},
		{name: "plain that starts slowly", run: []string{"--", b.Daemon, "-style", "plain", "-start", "500ms"}, keepAlive: loses, reloads: rounds(5, 20)},
	} {
		t.Run(s.name, func(t *testing.T) { s.test(t, b) })
	}
}

func (s subject) test(t *testing.T, b rig.Binaries) {
	t.Run("saturated", func(t *testing.T) {
		s.underLoad(t, b, []bench.Load{{Kind: bench.PerRequest, Clients: 8}})
	})
	t.Run("mixed", func(t *testing.T) {
		loads := []bench.Load{
			{Kind: bench.PerRequest, Rate: 300},
			{Kind: bench.Slow, Rate: 40},
			{Kind: bench.Pause, Rate: 40},
		}
		if s.keepAlive != never {
			loads = append(loads, bench.Load{Kind: bench.KeepAlive, Rate: 200})
		}
		if s.echo {
			loads = append(loads, bench.Load{Kind: bench.Echo})
		}
		s.underLoad(t, b, loads)
	})
}

// underLoad replaces the daemon while the loads run, and judges what clients saw.
func (s subject) underLoad(t *testing.T, b rig.Binaries, loads []bench.Load) {
	t.Helper()
	s.underLoadBy(t, b, loads, rig.Options{})
}

func (s subject) underLoadBy(t *testing.T, b rig.Binaries, loads []bench.Load, o rig.Options) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	h := s.hold(t, b, o)
	results := during(t, ctx, addressed(t, ctx, h, loads...), func() { reloadAll(t, ctx, h, cmp.Or(s.reloads, reloads)) })
	s.judge(t, results)
	notRelayed(t, h)
}

// addressed sends the loads to the holder's endpoints.
func addressed(t *testing.T, ctx context.Context, h *rig.Holder, loads ...bench.Load) []bench.Load {
	t.Helper()
	st, err := h.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range loads {
		loads[i].Addr = st.Addr(endpointOf(loads[i]))
	}
	return loads
}

func endpointOf(l bench.Load) string {
	if l.Kind == bench.Echo {
		return "echo"
	}
	return "http"
}

func (s subject) hold(t *testing.T, b rig.Binaries, o rig.Options) *rig.Holder {
	t.Helper()
	o.Name = "web"
	args := []string{"-l", "http=" + cmp.Or(s.address, "127.0.0.1:0"), "--max-draining", strconv.Itoa(reloads + 1), "--drain-timeout", "120s"}
	if s.echo {
		args = append(args, "-l", "echo=127.0.0.1:0")
	}
	o.Args = append(append(o.Args, args...), s.run...)
	h, err := b.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.End(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the holder's log:\n%s", tail(h.Log(), 60))
		}
	})
	return h
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// during runs the loads for as long as f takes, and for a moment before and after.
func during(t *testing.T, ctx context.Context, loads []bench.Load, f func()) []*bench.Result {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	results := make([]*bench.Result, len(loads))
	var wg sync.WaitGroup
	for i, l := range loads {
		l.Duration = 3 * time.Minute // f's end is the end
		l.Tolerance = lateness
		wg.Go(func() {
			r, err := l.Run(ctx)
			if err != nil {
				t.Error(err)
			}
			results[i] = r
		})
	}
	moment(ctx)
	f()
	moment(ctx)
	stop()
	wg.Wait()
	return results
}

// lateness is how late a request may begin for the offered rate to count as met:
// the machine may be busy with something else, but nothing may be left out.
const lateness = 2 * time.Second

// moment lets every load send something to the generation at hand.
func moment(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(300 * time.Millisecond):
	}
}

func reloadAll(t *testing.T, ctx context.Context, h *rig.Holder, n int) {
	t.Helper()
	for range n {
		if err := h.Reload(ctx); err != nil {
			t.Error(err)
			return
		}
		spell(ctx)
	}
}

// spell is how long each generation serves at least, so that all of them are seen.
func spell(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
}

func (s subject) judge(t *testing.T, results []*bench.Result) {
	t.Helper()
	var table strings.Builder
	bench.Table(&table, results...)
	n := cmp.Or(s.reloads, reloads)
	t.Logf("%d reloads:\n%s", n, &table)
	for _, r := range results {
		if r == nil {
			continue
		}
		s.judgeFailures(t, r)
		if !r.RateMet {
			t.Errorf("%s: the offered rate was not met: %d of %d were late, the worst by %s", r.Name, r.Late, r.Intended, r.MaxLate)
		}
		if r.Kind == bench.PerRequest { // a kept-alive connection may outlast several generations
			allSeen(t, r, n)
		}
	}
}

// judgeFailures: none, but for what the protocol leaves to a server that closes
// kept-alive connections when it stops.
func (s subject) judgeFailures(t *testing.T, r *bench.Result) {
	t.Helper()
	failed := r.Failed()
	if r.Kind == bench.KeepAlive && s.keepAlive == loses {
		onReused := 0
		for _, n := range r.OnReused {
			onReused += n
		}
		t.Logf("%s: %d of %d requests on kept-alive connections met the daemon's own close", r.Name, onReused, r.Sent)
		failed -= onReused
	}
	if failed != 0 {
		t.Errorf("%s: %d of %d failed: %v, e.g. %v", r.Name, failed, r.Sent, r.Failures, r.Listed[:min(3, len(r.Listed))])
	}
}

func allSeen(t *testing.T, r *bench.Result, reloads int) {
	t.Helper()
	for n := 1; n <= reloads+1; n++ {
		if r.Generations[strconv.Itoa(n)] == 0 {
			t.Errorf("%s: generation %d answered nothing", r.Name, n)
		}
	}
}

func notRelayed(t *testing.T, h *rig.Holder) {
	t.Helper()
	st, err := h.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Relayed != 0 {
		t.Errorf("%d clients had to be relayed", st.Relayed)
	}
	for _, g := range st.Generations {
		if g.State == "failed" || strings.Contains(g.Exit, "SIGKILL") {
			t.Errorf("generation %d: %s %s", g.Number, g.State, g.Exit)
		}
	}
}

// need finds a program of Debian's, or skips; GAPLESS_REQUIRE_ALL makes that a
// failure.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("GAPLESS_REQUIRE_ALL") != "" {
		t.Fatalf("%s is not installed", program)
	}
	t.Skipf("%s is not installed", program)
	return ""
}

// freePort is one that no connection gets by chance, before the daemon has bound it.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 10000 + rand.IntN(20000)
		if ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
