package headline

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
)

// awkwardReloads is how often each awkward daemon is replaced.
var awkwardReloads = rounds(5, 10)

// awkward is a habit of testdata/awkward.
type awkward struct {
	name  string
	flags []string
	// starts is how long it takes at least to be able to serve.
	starts time.Duration
	loads  []bench.Load
	// then is done under load when it has been replaced often enough.
	then func(*testing.T, context.Context, *rig.Holder)
	// generations are those that then adds.
	generations int
}

// Daemons that do with their socket what nobody thinks of, static and without any knowledge
// of gapless, are replaced under load like others: no client is lost, every generation
// answers, none ends before it is told to.
func TestAwkwardDaemonsLoseNothing(t *testing.T) {
	program := awkwardDaemon(t)
	for _, a := range []awkward{
		{name: "epoll registered before bind", flags: []string{"-epoll-first"}},
		{name: "bind long before listen", flags: []string{"-listen-after", "1s"}, starts: time.Second},
		{name: "listen long before accept", flags: []string{"-accept-after", "1s"}, starts: time.Second},
		{name: "listens twice", flags: []string{"-listen-twice"}},
		{name: "backlog 1", flags: []string{"-backlog", "1"}, loads: []bench.Load{burst()}, then: hasRoom},
		{name: "backlog 1, listens twice", flags: []string{"-backlog", "1", "-listen-twice"}, loads: []bench.Load{burst()}, then: hasRoom},
		{name: "ends at any accept error", flags: []string{"-fragile"}, then: pausesAndStops, generations: 2},
		{name: "ends at any accept error, even EAGAIN", flags: []string{"-fragile", "-epoll-first"}, then: pausesAndStops, generations: 2},
	} {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			a.test(t, program)
		})
	}
}

// burst is of clients who all come at once, and again.
func burst() bench.Load {
	return bench.Load{Name: "burst", Kind: bench.PerRequest, Clients: 48, Think: 200 * time.Millisecond}
}

// awkwardDaemon builds it, static.
func awkwardDaemon(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "awkward")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/awkward")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("can't build it: %v\n%s", err, out)
	}
	return program
}

// bound is a subject that binds its address itself.
func bound(t *testing.T, flags []string, command ...string) subject {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	return subject{address: address}.with(append(append(flags, "--"), append(command, "-listen", address)...)...)
}

func (a awkward) test(t *testing.T, program string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	h := bound(t, nil, append([]string{program}, a.flags...)...).hold(t, binaries(t), rig.Options{})
	loads := append([]bench.Load{
		{Kind: bench.PerRequest, Rate: 100},
		{Kind: bench.Pause, Rate: 20},
	}, a.loads...)
	results := during(t, ctx, addressed(t, ctx, h, loads...), func() {
		reloadAll(t, ctx, h, awkwardReloads)
		notRelayed(t, h)
		if a.then != nil {
			a.then(t, ctx, h)
		}
	})
	d := untilDetails(t, ctx, h, "the others to be gone", details.alone)
	judgeAwkward(t, results, awkwardReloads+1+a.generations)
	a.judgeGenerations(t, d)
	if text := "awkward: "; strings.Contains(h.Log(), text) {
		t.Error("a daemon ended by itself")
	}
}

func judgeAwkward(t *testing.T, results []*bench.Result, generations int) {
	t.Helper()
	var table strings.Builder
	bench.Table(&table, results...)
	t.Logf("%d generations:\n%s", generations, &table)
	for _, r := range results {
		subject{}.judgeFailures(t, r)
		if !r.RateMet {
			t.Errorf("%s: the offered rate was not met: %d of %d were late, the worst by %s", r.Name, r.Late, r.Intended, r.MaxLate)
		}
	}
	all := bench.Merge("all", results...)
	for n := 1; n <= generations; n++ {
		if all.Generations[strconv.Itoa(n)] == 0 {
			t.Errorf("generation %d answered nothing: %v", n, all.Generations)
		}
	}
}

// judgeGenerations: each has bound by itself, was ready when it could serve and not before,
// and ended by the stop signal.
func (a awkward) judgeGenerations(t *testing.T, d details) {
	t.Helper()
	if d.Crashes != 0 {
		t.Errorf("%d crashes", d.Crashes)
	}
	for _, g := range d.Generations {
		if g.Delivery != "bind" {
			t.Errorf("generation %d got its listener by %q", g.Number, g.Delivery)
		}
		if took := g.Ready.Sub(g.Started); took < a.starts {
			t.Errorf("generation %d was ready after %s, and could not serve before %s", g.Number, took, a.starts)
		}
		if g.State != "live" && (g.Exit != "killed by SIGTERM" || g.Failure != "" || g.Signalled.IsZero()) {
			t.Errorf("generation %d: %s %s %s", g.Number, g.State, g.Exit, g.Failure)
		}
	}
}

// hasRoom for more clients than the daemon has asked for.
func hasRoom(t *testing.T, ctx context.Context, h *rig.Holder) {
	t.Helper()
	d := detailsOf(t, ctx, h)
	if _, limit := d.queue(awkwardReloads + 1); limit < 128 {
		t.Errorf("only %d clients can wait", limit)
	}
}

// pausesAndStops is what may make a listener that somebody accepts from another one, or have
// somebody else accept from it.
func pausesAndStops(t *testing.T, ctx context.Context, h *rig.Holder) {
	t.Helper()
	for _, verb := range []string{"pause", "reload", "resume", "stop", "start"} {
		if _, err := h.Gapless(ctx, verb, h.Name); err != nil {
			t.Error(err)
			return
		}
		spell(ctx)
	}
}
