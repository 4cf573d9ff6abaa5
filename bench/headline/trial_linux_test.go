package headline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
)

// loads are of new connections: what is left to chance with kept ones is the server's.
func (r *trial) loads() (all []bench.Load) {
	for _, host := range r.addresses() {
		all = append(all, r.load(bench.PerRequest, host, 200/float64(len(r.addresses()))))
	}
	if !r.sequential {
		all = append(all, r.load(bench.Pause, r.addresses()[0], 20))
	}
	return all
}

func (r *trial) load(kind bench.Kind, address string, rate float64) bench.Load {
	return bench.Load{Name: fmt.Sprintf("%s %s", kind, address), Kind: kind, Addr: address, Rate: rate, Speak: r.speak, Identify: headerOrFirstWord}
}

func (r *trial) addresses() (all []string) {
	hosts := r.hosts
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1"}
	}
	for _, host := range hosts {
		all = append(all, net.JoinHostPort(host, strconv.Itoa(r.port)))
	}
	return all
}

func headerOrFirstWord(header http.Header, body []byte) string {
	if g := header.Get("X-Generation"); g != "" {
		return g
	}
	return bench.FirstWord(header, body)
}

// reloadAll deploys each release. Whoever connects when a reload has been answered gets
// the new one.
func (r *trial) reloadAll(t *testing.T, ctx context.Context) {
	t.Helper()
	for n := 1; n <= unmodifiedReloads+1; n++ {
		if n > 1 {
			r.deploy(t, n)
			if err := r.h.Reload(ctx); err != nil {
				t.Error(err)
				return
			}
		}
		r.answers(t, ctx, n)
		maps.Copy(r.seen, descendants(r.h.PID()))
		spell(ctx)
	}
}

// answers asks once at each address.
func (r *trial) answers(t *testing.T, ctx context.Context, n int) {
	t.Helper()
	r.remember(t, ctx)
	for _, address := range r.addresses() {
		l := r.load(bench.PerRequest, address, 0)
		l.Clients, l.Max = 1, 1
		result, err := l.Run(ctx)
		if err != nil {
			t.Fatal(err)
		}
		r.renumber(result)
		if result.Generations[strconv.Itoa(n)] != 1 {
			t.Errorf("after the reload to generation %d %s was answered by %v, failures %v", n, address, result.Generations, result.Listed)
		}
	}
}

// remember is told whose the pids are after each reload: the status forgets those that
// have long ended.
func (r *trial) remember(t *testing.T, ctx context.Context) {
	t.Helper()
	st, err := r.h.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range st.Generations {
		r.pids[fmt.Sprint("pid ", g.PID)] = strconv.Itoa(g.Number)
	}
}

// renumber turns pids into the numbers of their generations.
func (r *trial) renumber(results ...*bench.Result) {
	for _, result := range results {
		for pid, generation := range r.pids {
			if answers, ok := result.Generations[pid]; ok {
				delete(result.Generations, pid)
				result.Generations[generation] += answers
			}
		}
	}
}

// drained waits until all but the live generation have gone.
func (r *trial) drained(t *testing.T, ctx context.Context) rig.Status {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		st, err := r.h.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(st.Generations, func(g rig.Generation) bool { return g.State != "live" && g.Ended.IsZero() }) {
			return st
		}
		if time.Now().After(deadline) {
			t.Errorf("generations that were replaced are still there: %+v", st.Generations)
			return st
		}
		pass(ctx, 50*time.Millisecond)
	}
}

func (r *trial) judge(t *testing.T, results []*bench.Result) {
	t.Helper()
	var table strings.Builder
	bench.Table(&table, results...)
	t.Logf("%d reloads:\n%s", unmodifiedReloads, &table)
	for _, result := range results {
		subject{}.judgeFailures(t, result)
		if !result.RateMet {
			t.Errorf("%s: the offered rate was not met: %d of %d were late, the worst by %s", result.Name, result.Late, result.Intended, result.MaxLate)
		}
	}
	all := bench.Merge(r.name, results...)
	for n := 1; n <= unmodifiedReloads+1; n++ {
		if all.Generations[strconv.Itoa(n)] == 0 {
			t.Errorf("generation %d answered nothing: %v", n, all.Generations)
		}
	}
	if len(all.Generations) != unmodifiedReloads+1 {
		t.Errorf("answers of %d generations, want %d: %v", len(all.Generations), unmodifiedReloads+1, all.Generations)
	}
}

// judgeGenerations: none failed or had to be killed, and no client had to be relayed.
// The status names the delivery of those that have bound something.
func (r *trial) judgeGenerations(t *testing.T, st rig.Status) {
	t.Helper()
	notRelayed(t, r.h)
	want := "bind"
	if r.how == listenFDs {
		want = ""
	}
	for _, g := range st.Generations {
		if g.Delivery != want {
			t.Errorf("generation %d got its listeners by %q, want %q", g.Number, g.Delivery, want)
		}
	}
}

// judgeDelivery returns how the daemon got its sockets, by what the log says of each.
func (r *trial) judgeDelivery(t *testing.T) string {
	t.Helper()
	hows, generations := map[string]int{}, map[int]bool{}
	for line := range strings.Lines(r.h.Log()) {
		var event struct {
			Event      string `json:"event"`
			Generation int    `json:"generation"`
			How        string `json:"how"`
		}
		if json.Unmarshal([]byte(line), &event) == nil && event.Event == "listener.bound" {
			hows[event.How]++
			generations[event.Generation] = true
		}
	}
	got := strings.Join(slices.Sorted(maps.Keys(hows)), ", ")
	switch {
	case len(hows) == 0:
		got = listenFDs
	case len(generations) != unmodifiedReloads+1:
		t.Errorf("%d generations have bound something, want %d", len(generations), unmodifiedReloads+1)
	}
	if got != r.how {
		t.Errorf("sockets by %s, want %s", got, r.how)
	}
	return got
}

// end leaves nothing: while it runs, the holder's only child is the live generation, and
// afterwards nobody runs or listens.
func (r *trial) end(t *testing.T) {
	t.Helper()
	st, err := r.h.Status(t.Context())
	if err != nil || st.Live() == nil {
		t.Fatalf("nobody is live: %v", err)
	}
	for pid := range children(r.h.PID()) {
		if pid != st.Live().PID {
			t.Errorf("process %d was left behind: %s", pid, commandLine(pid))
		}
	}
	maps.Copy(r.seen, descendants(r.h.PID()))
	if err := r.h.End(); err != nil {
		t.Error(err)
	}
	for pid, started := range r.seen {
		if startOf(pid) == started {
			t.Errorf("process %d outlives its holder: %s", pid, commandLine(pid))
		}
	}
	ln, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(r.port)))
	if err != nil {
		t.Errorf("somebody still listens: %v", err)
		return
	}
	ln.Close()
}
