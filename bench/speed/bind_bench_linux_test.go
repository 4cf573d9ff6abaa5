package speed

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/ready"
)

// bindRounds is how many generations bind.
const bindRounds = 100

// bindWays are what becomes of the daemon's socket, and a manner of the binder's that
// makes it so.
var bindWays = []struct{ name, how, manner string }{
	{"keep", "keep", ""},
	{"keep, 1000 descriptors", "keep", manyOpen},
	{"replace", "replace", firstWide},
}

// BenchmarkBind asks a daemon how long its bind(2) and listen(2) take when a whole
// service decides about them, and in turn with nothing in between (alone-…). listen
// makes the daemon ready, so the switch may be a part of it. other-… and free-… are
// binds that are let through: of a port that is nobody's endpoint, and of port 0.
func BenchmarkBind(b *testing.B) {
	for _, way := range bindWays {
		b.Run(way.name, func(b *testing.B) {
			told := hearBinders(b)
			addr, other := quietAddr(b), quietAddr(b)
			s := startService(b, binderCommand(told, addr, other, way.manner), ready.Auto, func(c *reload.Config) {
				c.Specs = []handoff.Spec{specAt(b, addr, way.manner)}
			})
			told.next()
			aloneCommand := binderCommand(told, quietAddr(b), other, way.manner)
			var alone, held bindSamples
			for b.Loop() {
				for range bindRounds {
					alone.add(told.alone(aloneCommand))
					s.reload()
					held.add(told.next())
					s.boundBy(way.how)
					s.quiet()
				}
			}
			withoutMean(b)
			b.ReportMetric(alone.bind.median(b), "alone-bind-p50-ms")
			b.ReportMetric(alone.listen.median(b), "alone-listen-p50-ms")
			held.report(b)
		})
	}
}

func binderCommand(t *told, addr, other, manner string) []string {
	return []string{os.Args[0], "binder", t.path, addr, other, manner}
}

func specAt(b *testing.B, addr, manner string) handoff.Spec {
	b.Helper()
	at := netip.MustParseAddrPort(addr)
	if manner == firstWide {
		at = netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())
	}
	spec, err := handoff.ParseSpec("http=" + at.String())
	if err != nil {
		b.Fatal(err)
	}
	return spec
}

type bindSamples struct{ bind, listen, other, free samples }

func (s *bindSamples) add(t bindTimes) {
	s.bind.add(t.Bind)
	s.listen.add(t.Listen)
	for i := range t.Other {
		s.other.add(t.Other[i])
		s.free.add(t.Free[i])
	}
}

func (s *bindSamples) report(b *testing.B) {
	b.Helper()
	for name, all := range map[string]samples{"bind": s.bind, "listen": s.listen, "other": s.other, "free": s.free} {
		b.ReportMetric(all.median(b), name+"-p50-ms")
		b.ReportMetric(all.percentile(b, 99), name+"-p99-ms")
		b.ReportMetric(all.percentile(b, 100), name+"-max-ms")
	}
}

// told is where binders say what they have measured.
type told struct {
	b    *testing.B
	conn *net.UnixConn
	path string
}

func hearBinders(b *testing.B) *told {
	b.Helper()
	path := filepath.Join(b.TempDir(), "times")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return &told{b, conn, path}
}

func (t *told) next() (times bindTimes) {
	t.b.Helper()
	message := make([]byte, 4096)
	t.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, err := t.conn.Read(message)
	if err == nil {
		err = json.Unmarshal(message[:n], &times)
	}
	if err != nil {
		t.b.Fatalf("a daemon said %q: %v", message[:n], err)
	}
	if times.Bind <= 0 || times.Listen <= 0 || len(times.Other) != othersPerStart || len(times.Free) != othersPerStart {
		t.b.Fatalf("a daemon has not measured: %+v", times)
	}
	return times
}

// alone is one start with nothing in between.
func (t *told) alone(command []string) bindTimes {
	t.b.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.b.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait() // says that it was killed
	}()
	return t.next()
}

// boundBy wants the live generation to have got its listener so.
func (s *service) boundBy(how string) {
	s.b.Helper()
	past, _, err := s.Events(s.ctx, false)
	if err != nil {
		s.b.Fatal(err)
	}
	var got []any
	for _, e := range past {
		if e.Kind == "listener.bound" && e.Generation == s.live {
			got = append(got, e.Fields["how"])
		}
	}
	if fmt.Sprint(got) != fmt.Sprint([]any{how}) {
		s.b.Fatalf("generation %d got its listener by %v, want %s", s.live, got, how)
	}
}
