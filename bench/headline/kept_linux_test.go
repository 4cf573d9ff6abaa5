package headline

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
)

// Of clients that keep their connections. Answers take some 10 ms (40 ms in Python), and
// a busy client waits as long before its next request.
const (
	keptClients = 3
	keptThink   = 10 * time.Millisecond
	// keptVisit is how long a client that comes and goes keeps a connection.
	keptVisit = time.Second
	// keptGap is between two requests of one that is idle at times: longer than
	// keptIdle, after which --drain auto does not wait for it, and the second between two
	// looks.
	keptGap, keptIdle = 3500 * time.Millisecond, 2 * time.Second
	// keptTimeout is a --drain-timeout that clients who never go outlast.
	keptTimeout = 3 * time.Second
	keptMargin  = 300 * time.Millisecond
)

// keptChanges is how often each server is replaced.
var keptChanges = rounds(2, 10)

// crowd is a kind of clients.
type crowd struct {
	name string
	// think is between an answer and the next request, and keep for how long they keep
	// a connection, 0 for ever.
	think, keep time.Duration
}

func visitors() crowd { return crowd{"busy, 1 s a connection", keptThink, keptVisit} }
func idlers() crowd   { return crowd{"a request every 3.5 s", keptGap, 0} }
func settlers() crowd { return crowd{"busy for ever", keptThink, 0} }

// manner is a way to replace a server, and who its clients are.
type manner struct {
	name string
	// flags of `gapless run`; with none the server is stopped, and started again.
	flags  []string
	crowds []crowd
	// drained is for how long at least a generation is waited for that has such clients.
	drained time.Duration
	// spares is the crowd of which, by design, nobody loses anything.
	spares string
}

func (m manner) plain() bool { return len(m.flags) == 0 }

// manners: settlers are apart where a generation is waited for, since they would have it
// stay for all others too.
func manners() []manner {
	return []manner{
		{name: "plain restart", crowds: []crowd{visitors(), idlers(), settlers()}},
		{name: "`--drain signal`", flags: []string{"--drain", "signal"}, crowds: []crowd{visitors(), idlers(), settlers()}},
		{name: "`--drain auto`", flags: []string{"--drain", "auto", "--drain-idle", keptIdle.String(), "--drain-timeout", "1h"},
			crowds: []crowd{visitors(), idlers()}, spares: visitors().name},
		{name: "`--drain auto`", flags: []string{"--drain", "auto", "--drain-idle", keptIdle.String(), "--drain-timeout", keptTimeout.String()},
			crowds: []crowd{settlers()}, drained: keptTimeout},
	}
}

// pace is the least from change to change, and that from one's end to the next: enough for
// each client to send something to each generation.
func (m manner) pace() (spell, rest time.Duration) {
	for _, c := range m.crowds {
		spell = max(spell, c.think+keptMargin, c.keep+keptMargin)
		rest = max(rest, keptMargin, c.think-keptIdle+keptMargin)
	}
	return spell, rest
}

// A server that ends at the stop signal with all that it has can cost a client that keeps
// its connection a request, and nobody can prevent it but the server: how many is measured.
// What gapless does about it is demanded: with --drain auto no client is cut that
// goes within the drain timeout and is never idle for --drain-idle, and whatever
// is lost was on a connection that had served before, while its server ended. With -v
// it prints the table of the README.
func TestKeepAliveOnDaemonsWithoutGracefulStop(t *testing.T) {
	table := keptTable{cells: map[string]string{}}
	var wg sync.WaitGroup
	for _, s := range keptServers() {
		for _, m := range manners() {
			c := &keptTrial{server: s, manner: m}
			wg.Go(func() {
				t.Run(s.name+"/"+strings.Trim(m.name, "`")+"/"+m.crowds[0].name, func(t *testing.T) { c.test(t, &table) })
			})
		}
	}
	wg.Wait() // side by side, as most of it is waiting
	t.Logf("%d changes; failed of all requests, and how:\n%s", keptChanges, &table)
}

// keptTrial is one server replaced in one manner.
type keptTrial struct {
	server keptServer
	manner manner
	ends   []ending
}

// ending is of a generation: from its stop signal to its end, or with plain restarts until
// the next one serves.
type ending struct {
	generation    int
	waited        time.Duration // before the signal, since it had settled
	signalled, by time.Time
}

func (c *keptTrial) test(t *testing.T, table *keptTable) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r := c.replacer(t)
	load := bench.Load{Kind: bench.KeepAlive, Addr: r.address(), Path: c.server.path, Clients: keptClients, Identify: c.server.identify}
	results := c.during(t, ctx, load, func() {
		pass(ctx, keptMargin)
		for range keptChanges {
			began := time.Now()
			c.ends = append(c.ends, r.replace(t, ctx))
			spell, rest := c.manner.pace()
			pass(ctx, max(rest, spell-time.Since(began)))
		}
	})
	var text strings.Builder
	bench.Table(&text, results...)
	t.Logf("%d changes:\n%s", keptChanges, &text)
	for _, r := range results {
		c.judge(t, r)
		table.add(c, r)
	}
	c.judgeAll(t, bench.Merge("all", results...))
}

// during lets all crowds loose for as long as f takes.
func (c *keptTrial) during(t *testing.T, ctx context.Context, l bench.Load, f func()) []*bench.Result {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	results := make([]*bench.Result, len(c.manner.crowds))
	var wg sync.WaitGroup
	for i, crowd := range c.manner.crowds {
		wg.Go(func() {
			var err error
			if results[i], err = crowd.run(ctx, l); err != nil {
				t.Error(err)
			}
		})
	}
	f()
	stop()
	wg.Wait()
	return results
}

// run until ctx ends.
func (c crowd) run(ctx context.Context, l bench.Load) (*bench.Result, error) {
	l.Name, l.Think, l.Duration = c.name, c.think, cmp.Or(c.keep, time.Hour)
	var all []*bench.Result
	for ctx.Err() == nil {
		r, err := l.Run(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return bench.Merge(c.name, all...), nil
}

func (c *keptTrial) judge(t *testing.T, r *bench.Result) {
	t.Helper()
	if r.Name == visitors().name {
		for n := 1; n <= keptChanges+1; n++ {
			if r.Generations[strconv.Itoa(n)] == 0 {
				t.Errorf("%s: generation %d answered nothing", r.Name, n)
			}
		}
	}
	if c.manner.plain() {
		return // whatever it costs
	}
	if r.Name == c.manner.spares && r.Failed() > 0 {
		t.Errorf("%s: %d of %d failed: %v, e.g. %v", r.Name, r.Failed(), r.Sent, r.Failures, r.Listed[:min(3, len(r.Listed))])
	}
	if r.Name == idlers().name && (r.IdleResets > 0 || r.Reconnects+r.Failed() < keptChanges) {
		t.Errorf("%s: through %d changes %d connections were closed while idle, %d reset, and %d requests met the close",
			r.Name, keptChanges, r.Reconnects, r.IdleResets, r.Failed())
	}
	c.onlyAtTheEnd(t, r)
}

// onlyAtTheEnd: each failure is of a request on a kept connection that was under way while a
// generation ended.
func (c *keptTrial) onlyAtTheEnd(t *testing.T, r *bench.Result) {
	t.Helper()
	if len(r.Listed) < r.Failed() {
		t.Fatalf("%s: only %d of %d failures are known", r.Name, len(r.Listed), r.Failed())
	}
	for _, f := range r.Listed {
		if !slices.Contains(cutClasses(), f.Class) || !f.OnReused || !c.ending(r.Started.Add(f.Begun), r.Started.Add(f.At)) {
			t.Errorf("%s: %+v; generations ended at %v", r.Name, f, c.ends)
		}
	}
}

// cutClasses are of connections that end before the answer does.
func cutClasses() []bench.Class {
	return []bench.Class{bench.EOF, bench.Short, bench.ResetBefore, bench.ResetAfter}
}

// ending tells whether a generation was, between the two.
func (c *keptTrial) ending(from, to time.Time) bool {
	for _, e := range c.ends {
		if !from.After(e.by) && !to.Before(e.signalled) {
			return true
		}
	}
	return false
}

// judgeAll: generations had their time, and where nothing is done about it, something was
// lost, which shows that the clients are such as can lose something.
func (c *keptTrial) judgeAll(t *testing.T, all *bench.Result) {
	t.Helper()
	t.Logf("%d of %d failed, %d of them on kept connections", all.Failed(), all.Sent, onReused(all))
	if c.manner.plain() && all.Failed() == 0 {
		t.Error("nothing was lost by plain restarts")
	}
	for _, e := range c.ends {
		if e.waited < c.manner.drained {
			t.Errorf("generation %d was told to stop after %s, though its clients were busy", e.generation, e.waited)
		}
	}
}

func onReused(r *bench.Result) (sum int) {
	for _, n := range r.OnReused {
		sum += n
	}
	return sum
}

// keptTable has a row for a server and a crowd, a column for a manner.
type keptTable struct {
	mu    sync.Mutex
	cells map[string]string
}

func (k *keptTable) add(c *keptTrial, r *bench.Result) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cells[c.server.name+r.Name+c.manner.name] = keptCell(r)
}

// keptCell is "7 of 1234 (4 refused, 3 cut)".
func keptCell(r *bench.Result) string {
	refused, cut := r.Failures[bench.Refused], 0
	for _, class := range cutClasses() {
		cut += r.Failures[class]
	}
	var how []string
	for _, kind := range []struct {
		n    int
		name string
	}{{refused, "refused"}, {cut, "cut"}, {r.Failed() - refused - cut, "other"}} {
		if kind.n > 0 {
			how = append(how, fmt.Sprintf("%d %s", kind.n, kind.name))
		}
	}
	text := fmt.Sprintf("%d of %d", r.Failed(), r.Sent)
	if len(how) > 0 {
		text += " (" + strings.Join(how, ", ") + ")"
	}
	return text
}

func (k *keptTable) String() string {
	var b strings.Builder
	b.WriteString("| server | its clients | plain restart | `--drain signal` | `--drain auto` |\n|---|---|---|---|---|\n")
	for _, s := range keptServers() {
		for _, crowd := range []crowd{visitors(), idlers(), settlers()} {
			fmt.Fprintf(&b, "| %s | %s |", s.name, crowd.name)
			for _, m := range manners()[:3] {
				fmt.Fprintf(&b, " %s |", cmp.Or(k.cells[s.name+crowd.name+m.name], "–"))
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
