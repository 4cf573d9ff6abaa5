package headline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/lab"
	"github.com/gapless-dev/gapless/bench/rig"
)

// badDeploy is a version that should not have been deployed, and what comes of it.
type badDeploy struct {
	name  string
	fault string   // of bench/daemon
	flags []string // of `gapless run`
	// code and words are what whoever deployed it gets of `gapless reload`: the
	// reason, and the last that the version said.
	code  int
	words []string
	// served: clients reached it, and it may have had some of them in hand.
	served bool
	// beside is what systemd makes of the same.
	beside fate
}

// fate of a port.
type fate int

const (
	unknown        fate = iota // systemd has no such thing
	closedForGood              // it stays so when there is a good version again
	servedByNobody             // it is open, and no answer is any good
)

func badDeploys() []badDeploy {
	return []badDeploy{
		{name: "exits", fault: "exit", code: 11,
			words:  []string{"ended before it was ready: exit status 1", "can't open the database"},
			beside: closedForGood},
		{name: "hangs", fault: "hang", flags: []string{"--ready-timeout", "2s"}, code: 11,
			words:  []string{"was not ready within 2s", "waiting for the database"},
			beside: servedByNobody},
		{name: "fails its probe", fault: "sick", flags: []string{"--ready-timeout", "2s"}, code: 10,
			words:  []string{"was refused", "503", "serving without the database"},
			beside: servedByNobody},
		{name: "dies in its probation", fault: "die:700ms", flags: []string{"--probation", "20s"}, code: 12, served: true,
			words:  []string{"ended by itself during its probation: exit status 3", "dies with"},
			beside: closedForGood},
		{name: "dies as a canary", fault: "die:700ms", flags: []string{"--canary", "10%", "--canary-for", "20s"}, code: 12, served: true,
			words: []string{"ended by itself during its canary: exit status 3", "dies with"}},
	}
}

// A bad version costs nobody anything while it has no traffic, and then what it had
// in hand itself; whoever deployed it learns why. The same under systemd, with a
// socket unit and the same server, for comparison.
func TestBadDeploys(t *testing.T) {
	b := binaries(t)
	for _, d := range badDeploys() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			t.Run("gapless", func(t *testing.T) { d.underGapless(t, b) })
			if d.beside != unknown {
				t.Run("systemd", func(t *testing.T) { d.underSystemd(t, b) })
			}
		})
	}
}

// version is the server in dir, which a deploy replaces as a deploy should.
func version(t *testing.T, dir, daemon, fault string) {
	t.Helper()
	script := fmt.Sprintf("#!/bin/sh\nexec %s -style plain -notify -fault '%s'\n", daemon, fault)
	next := filepath.Join(dir, "server.next")
	if err := errors.Join(os.WriteFile(next, []byte(script), 0o755), os.Rename(next, filepath.Join(dir, "server"))); err != nil {
		t.Fatal(err)
	}
}

// deployLoads are bounded, so that the other side suffers as much as it does in the
// time, and no more.
func deployLoads(addr string) []bench.Load {
	return []bench.Load{
		{Kind: bench.PerRequest, Rate: 200, Addr: addr, Timeout: 2 * time.Second},
		{Kind: bench.Slow, Rate: 20, Addr: addr, Timeout: 3 * time.Second},
	}
}

func (d badDeploy) underGapless(t *testing.T, b rig.Binaries) {
	dir := t.TempDir()
	version(t, dir, b.Daemon, "")
	s := subject{name: "deploy", run: append(d.flags, "--probe", "http:/", "--probe-status", "200", "--", filepath.Join(dir, "server"))}
	h := s.hold(t, b, rig.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := h.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	version(t, dir, b.Daemon, d.fault)
	var refusal error
	results := during(t, ctx, deployLoads(st.Addr("http")), func() {
		refusal = h.Reload(ctx)
		moment(ctx)
	})
	t.Logf("%s:\n%s", d.name, tableOf(results))
	d.judgeRefusal(t, refusal)
	st, err = h.Status(ctx)
	if err != nil || st.Live() == nil || st.Live().Number != 1 {
		t.Fatalf("generation 1 is not live: %+v, %v", st, err)
	}
	for _, r := range results {
		if !r.RateMet {
			t.Errorf("%s: the offered rate was not met", r.Name)
		}
		if d.served {
			onlyItsOwn(t, r, deathOf(t, st, refusal.Error()))
		} else if r.Failed() != 0 || r.Generations["2"] != 0 {
			t.Errorf("%s: %d failed: %v, e.g. %v; answered by %v", r.Name, r.Failed(), r.Failures, r.Listed[:min(3, len(r.Listed))], r.Generations)
		}
	}
}

func tableOf(results []*bench.Result) string {
	var table strings.Builder
	bench.Table(&table, results...)
	return table.String()
}

func (d badDeploy) judgeRefusal(t *testing.T, refusal error) {
	t.Helper()
	var exit *exec.ExitError
	if !errors.As(refusal, &exit) || exit.ExitCode() != d.code {
		t.Fatalf("the reload ended with %v, want code %d", refusal, d.code)
	}
	for _, word := range d.words {
		if !strings.Contains(refusal.Error(), word) {
			t.Errorf("whoever deployed it is not told %q: %s", word, refusal)
		}
	}
}

// death of a version: the moment when it said that it dies, and with how many
// connections, and the one by which it was gone.
type death struct {
	held       int
	said, gone time.Time
}

func deathOf(t *testing.T, st rig.Status, lastWords string) death {
	t.Helper()
	found := regexp.MustCompile(`dies with (\d+) connections at (\d+)`).FindStringSubmatch(lastWords)
	if found == nil {
		t.Fatalf("it did not say how it died: %s", lastWords)
	}
	held, err1 := strconv.Atoi(found[1])
	ns, err2 := strconv.ParseInt(found[2], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for _, g := range st.Generations {
		if g.Number == 2 && !g.Ended.IsZero() {
			return death{held: held, said: time.Unix(0, ns), gone: g.Ended}
		}
	}
	t.Fatalf("generation 2 has not ended: %+v", st.Generations)
	return death{}
}

// onlyItsOwn: each failure is a connection that the version had in hand when it died,
// which may be some that it got after its last words. It did serve, too.
func onlyItsOwn(t *testing.T, r *bench.Result, d death) {
	t.Helper()
	broken := []bench.Class{bench.ResetBefore, bench.ResetAfter, bench.EOF, bench.Short}
	said, gone := d.said.Sub(r.Started), d.gone.Sub(r.Started)
	for _, f := range r.Listed {
		if f.Begun > gone || f.At < said || !slices.Contains(broken, f.Class) {
			t.Errorf("%s: %+v; it died from %s to %s", r.Name, f, said, gone)
		}
	}
	if most := d.held + int(r.OfferedRate*(gone-said).Seconds()) + 1; r.Failed() > most {
		t.Errorf("%s: %d failed, and it can't have had more than %d connections", r.Name, r.Failed(), most)
	}
	if r.Kind == bench.PerRequest && r.Generations["2"] == 0 {
		t.Errorf("%s: it never served", r.Name)
	}
}

// unitUnderTest is a service with a socket unit on a systemd of its own.
type unitUnderTest struct {
	*lab.Lab
	dir, daemon string // of the versions, outside and inside
}

const unitAddr = "127.0.0.1:8080"

// bootUnit has the daemon run as people have it: started by its socket unit, active
// when it says READY=1, restarted on failure, all limits as they come.
func bootUnit(t *testing.T, ctx context.Context, b rig.Binaries) *unitUnderTest {
	t.Helper()
	var one lab.Shared
	u := &unitUnderTest{Lab: one.Of(t), daemon: lab.Inside + "/daemon"}
	t.Cleanup(func() {
		if err := one.Close(); err != nil {
			t.Error(err)
		}
	})
	u.dir = u.Share()
	if out, err := exec.CommandContext(ctx, "cp", b.Daemon, u.dir+"/daemon").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	version(t, u.dir, u.daemon, "")
	err := u.Units(ctx, map[string]string{
		"web.socket":  "[Socket]\nListenStream=" + unitAddr + "\nFileDescriptorName=http\n",
		"web.service": "[Service]\nType=notify\nExecStart=" + lab.Inside + "/server\nRestart=on-failure\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Run(ctx, "systemctl", "start", "web.socket", "web.service"); err != nil {
		t.Fatal(err)
	}
	return u
}

func (d badDeploy) underSystemd(t *testing.T, b rig.Binaries) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	u := bootUnit(t, ctx, b)
	loads := deployLoads(unitAddr)
	for i := range loads {
		loads[i].Dial = u.dialer(unitAddr)
	}
	version(t, u.dir, u.daemon, d.fault)
	restarted := make(chan error, 1)
	results := during(t, ctx, loads, func() {
		go func() {
			_, err := u.Run(ctx, "systemctl", "restart", "web.service")
			restarted <- err
		}()
		if d.beside == closedForGood {
			u.untilGivenUp(t, ctx)
		}
		pass(ctx, 1500*time.Millisecond)
	})
	t.Logf("%s, under systemd:\n%s", d.name, tableOf(results))
	all := bench.Merge("all", results...)
	if d.beside == closedForGood {
		u.judgeClosed(t, ctx, all)
	} else {
		u.judgeServedByNobody(t, ctx, all)
	}
	cancel() // a restart that hangs
	t.Logf("systemctl restart: %v", <-restarted)
}

// untilGivenUp waits until systemd starts nothing any more.
func (u *unitUnderTest) untilGivenUp(t *testing.T, ctx context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := u.Until(ctx, "web.socket", map[string]string{"ActiveState": "failed", "Result": "service-start-limit-hit"}); err != nil {
		t.Errorf("%v; %s", err, u.Journal(ctx, "web.*"))
	}
}

// judgeClosed: the port is, whatever is deployed.
func (u *unitUnderTest) judgeClosed(t *testing.T, ctx context.Context, r *bench.Result) {
	t.Helper()
	u.log(t, ctx)
	if r.Failures[bench.Refused] == 0 {
		t.Errorf("nobody was refused: %v", r.Failures)
	}
	version(t, u.dir, u.daemon, "")
	if _, err := u.Run(ctx, "systemctl", "restart", "web.service"); err == nil {
		t.Error("the good version started without its socket")
	}
	again := u.again(t, ctx)
	if again.OK != 0 || again.Failures[bench.Refused] != again.Sent {
		t.Errorf("the port is open again: %+v", again.Failures)
	}
}

// judgeServedByNobody: all wait, or get a bad answer, for as long as nobody does
// something about it.
func (u *unitUnderTest) judgeServedByNobody(t *testing.T, ctx context.Context, r *bench.Result) {
	t.Helper()
	u.log(t, ctx)
	if again := u.again(t, ctx); again.OK > 0 || r.Failed() == 0 {
		t.Errorf("somebody was served: %d of %d; before that %d failed", again.OK, again.Sent, r.Failed())
	}
}

func (u *unitUnderTest) log(t *testing.T, ctx context.Context) {
	t.Helper()
	service, err1 := u.Show(ctx, "web.service", "ActiveState", "Result", "NRestarts")
	socket, err2 := u.Show(ctx, "web.socket", "ActiveState", "Result")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	t.Logf("web.service: %v, web.socket: %v", service, socket)
}

// again asks for a second.
func (u *unitUnderTest) again(t *testing.T, ctx context.Context) *bench.Result {
	t.Helper()
	load := bench.Load{Name: "afterwards", Kind: bench.PerRequest, Rate: 50, Duration: time.Second, Addr: unitAddr, Timeout: time.Second, Dial: u.dialer(unitAddr)}
	r, err := load.Run(ctx)
	if err != nil || r.Sent == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	t.Logf("afterwards:\n%s", tableOf([]*bench.Result{r}))
	return r
}

func (u *unitUnderTest) dialer(addr string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return u.DialContext(ctx, "tcp", addr) }
}
