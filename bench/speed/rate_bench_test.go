package speed

import (
	"context"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
)

const (
	ratePairs = 20
	rateSpell = 250 * time.Millisecond
)

// BenchmarkRate compares the requests a second of one daemon that binds its port
// itself with those of the same daemon under gapless, in turn within one run: with a
// listener that it is handed, and with its own bind(2). With a new connection for each
// request every one of them is steered.
func BenchmarkRate(b *testing.B) {
	plain, own := startPlain(b), freeAddr(b)
	for _, c := range []struct{ delivery, addr string }{
		{"listen-fds", hold(b, "-l", "http=127.0.0.1:0", "--", built.Daemon, "-style", "plain").addr()},
		{"bind", hold(b, "-l", "http="+own, "-E", withoutMPTCP, "--", built.Daemon, "-style", "plain", "-listen", own).addr()},
	} {
		for _, kind := range []bench.Kind{bench.PerRequest, bench.KeepAlive} {
			b.Run(c.delivery+"/"+string(kind), func(b *testing.B) { compareRates(b, kind, plain, c.addr) })
		}
	}
}

func compareRates(b *testing.B, kind bench.Kind, plain, held string) {
	var without, with, ratios samples
	for b.Loop() {
		spell(b, kind, plain) // warms both up
		spell(b, kind, held)
		for range ratePairs / 2 {
			// In the order A B B A, so that a machine which becomes busier favours nobody.
			p1, g1, g2, p2 := spell(b, kind, plain), spell(b, kind, held), spell(b, kind, held), spell(b, kind, plain)
			without, with = append(without, p1, p2), append(with, g1, g2)
			ratios = append(ratios, g1/p1, g2/p2)
		}
	}
	withoutMean(b)
	b.ReportMetric(without.median(b), "plain-req/s")
	b.ReportMetric(with.median(b), "gapless-req/s")
	b.ReportMetric(with.median(b)/without.median(b), "ratio")
	b.ReportMetric(ratios.median(b), "ratio-within-pairs-p50")
}

// spell is a closed loop of eight clients for a moment; it returns requests a second.
func spell(b *testing.B, kind bench.Kind, addr string) float64 {
	b.Helper()
	r, err := bench.Load{Kind: kind, Addr: addr, Duration: rateSpell}.Run(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if r.OK == 0 || r.Failed() > 0 {
		b.Fatalf("%s: %d requests, failures: %v", addr, r.Sent, r.Failures)
	}
	return r.AchievedRate
}

// withoutMPTCP: Go's servers listen by MPTCP if they bind themselves, gapless has them on
// plain TCP. It is off, so that only one thing differs.
const withoutMPTCP = "GODEBUG=multipathtcp=0"

// startPlain starts the daemon without gapless and returns its address.
func startPlain(b *testing.B) string {
	b.Helper()
	addr := freeAddr(b)
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
	return addr
}

func answers(ctx context.Context, addr string) bool {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func freeAddr(b *testing.B) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
