package speed

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
)

const (
	rateRounds = 8
	rateSpell  = 150 * time.Millisecond
)

// BenchmarkRate compares the requests a second of one daemon that binds its port
// itself with those of the same daemon under gapless, in turn within one run: with a
// listener that it is handed, with its own bind(2), and with that after 3 reloads. With
// a new connection for each request every one of them is steered.
//
// again-… compares the daemon without gapless with another copy of itself: a ratio that
// differs from 1 by less than that one's does is noise. cpu-ratio is of the daemon's own
// CPU time a request, which suffers less from what else the machine does.
func BenchmarkRate(b *testing.B) {
	plain, again := startPlain(b), startPlain(b)
	own := quietAddr(b)
	handed := hold(b, "-l", "http=127.0.0.1:0", "--", built.Daemon, "-style", "plain")
	binding := hold(b, "-l", "http="+own, "-E", withoutMPTCP, "--", built.Daemon, "-style", "plain", "-listen", own)
	for _, c := range []struct {
		name    string
		holder  *holder
		reloads int
	}{{"listen-fds", handed, 0}, {"bind", binding, 0}, {"bind after 3 reloads", binding, 3}} {
		for range c.reloads {
			c.holder.reload()
		}
		c.holder.quiet()
		held := server{c.holder.addr(), c.holder.status().Live().PID}
		for _, kind := range []bench.Kind{bench.PerRequest, bench.KeepAlive} {
			b.Run(c.name+"/"+string(kind), func(b *testing.B) { compareRates(b, kind, plain, held, again) })
		}
	}
}

type server struct {
	addr string
	pid  int
}

// rates are of one server: requests a second, their ratios to the first server's of the
// same turn, and microseconds of CPU a request.
type rates struct{ perSecond, ratios, cpu samples }

func compareRates(b *testing.B, kind bench.Kind, servers ...server) {
	all := make([]rates, len(servers))
	for b.Loop() {
		turn(b, kind, servers, make([]rates, len(servers))) // warms all up
		for range rateRounds {
			turn(b, kind, servers, all)
		}
	}
	plain, held, again := all[0], all[1], all[2]
	withoutMean(b)
	b.ReportMetric(plain.perSecond.median(b), "plain-req/s")
	b.ReportMetric(held.perSecond.median(b), "gapless-req/s")
	b.ReportMetric(held.perSecond.median(b)/plain.perSecond.median(b), "ratio")
	held.report(b, "", plain)
	again.report(b, "again-", plain)
}

// turn is in the order A B C C B A, so that a machine which becomes busier favours nobody.
func turn(b *testing.B, kind bench.Kind, servers []server, all []rates) {
	b.Helper()
	there := make([]float64, len(servers))
	for i, s := range servers {
		there[i] = all[i].spell(b, kind, s)
	}
	back := make([]float64, len(servers))
	for i := range servers {
		i = len(servers) - 1 - i
		back[i] = all[i].spell(b, kind, servers[i])
	}
	for i := range servers {
		all[i].ratios = append(all[i].ratios, there[i]/there[0], back[i]/back[0])
	}
}

func (r *rates) spell(b *testing.B, kind bench.Kind, s server) float64 {
	b.Helper()
	before := cpuTime(b, s.pid)
	perSecond, requests := spell(b, kind, s.addr)
	r.perSecond = append(r.perSecond, perSecond)
	r.cpu = append(r.cpu, float64((cpuTime(b, s.pid)-before).Nanoseconds())/1e3/float64(requests))
	return perSecond
}

func (r *rates) report(b *testing.B, prefix string, plain rates) {
	b.Helper()
	b.ReportMetric(r.ratios.median(b), prefix+"ratio-within-pairs-p50")
	b.ReportMetric(r.ratios.percentile(b, 0), prefix+"ratio-within-pairs-min")
	b.ReportMetric(r.ratios.percentile(b, 100), prefix+"ratio-within-pairs-max")
	if own := plain.cpu.median(b); own > 0 { // else it is not known here
		b.ReportMetric(r.cpu.median(b)/own, prefix+"cpu-ratio")
	}
}

// spell is a closed loop of eight clients for a moment; it returns requests a second, and
// how many there were.
func spell(b *testing.B, kind bench.Kind, addr string) (perSecond float64, requests int) {
	b.Helper()
	r, err := bench.Load{Kind: kind, Addr: addr, Duration: rateSpell}.Run(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if r.OK == 0 || r.Failed() > 0 {
		b.Fatalf("%s: %d requests, failures: %v", addr, r.Sent, r.Failures)
	}
	return r.AchievedRate, r.OK
}

// withoutMPTCP: Go's servers listen by MPTCP if they bind themselves, gapless has them on
// plain TCP. It is off, so that only one thing differs.
const withoutMPTCP = "GODEBUG=multipathtcp=0"

// startPlain starts the daemon without gapless.
func startPlain(b *testing.B) server {
	b.Helper()
	addr := quietAddr(b)
	cmd := exec.Command(built.Daemon, "-style", "plain", "-listen", addr)
	cmd.Env = append(os.Environ(), withoutMPTCP)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	ctx := bounded(b, 10*time.Second)
	for !answers(ctx, addr) {
		if ctx.Err() != nil {
			b.Fatalf("nobody listens on %s", addr)
		}
		time.Sleep(5 * time.Millisecond) // between two looks
	}
	return server{addr, cmd.Process.Pid}
}

func answers(ctx context.Context, addr string) bool {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// quietAddr is one of the loopback network's that nobody connects from, with a port that
// no connection gets by chance: it stays free at all addresses.
func quietAddr(b *testing.B) string {
	b.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.%d.%d.%d:%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254), 10000+rand.IntN(20000))
		_, port, _ := net.SplitHostPort(addr)
		ln, err := net.Listen("tcp4", ":"+port)
		if err == nil {
			ln.Close()
			return addr
		}
	}
	b.Fatal("no port is free")
	return ""
}
