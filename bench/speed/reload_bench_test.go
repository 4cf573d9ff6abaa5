package speed

import (
	"os"
	"testing"

	"github.com/gapless-dev/gapless/reload/ready"
)

// rounds is how many starts and reloads are compared.
const rounds = 40

// modes of readiness, with what makes the daemon fit for each.
var modes = []struct {
	name  string
	ready ready.Mode
	args  []string
}{
	{"notify", ready.Notify, nil},
	{"accept", ready.Accept, []string{"silent"}},
}

// BenchmarkReload compares a reload with a start of the same daemon without gapless,
// in turn. beyond-p50-ms is the difference of the medians: what gapless adds, which
// is its shim, finding out that the daemon is ready, and the switch. The command
// adds its own start to that.
func BenchmarkReload(b *testing.B) {
	for _, m := range modes {
		command := append([]string{os.Args[0], "daemon"}, m.args...)
		b.Run("in process/"+m.name, func(b *testing.B) {
			s := startService(b, command, m.ready)
			compare(b, s.reload, s.quiet)
		})
		b.Run("command/"+m.name, func(b *testing.B) {
			h := hold(b, append([]string{"--ready", string(m.ready), "-l", "http=127.0.0.1:0", "--"}, command...)...)
			own := compare(b, h.reload, h.quiet)
			b.ReportMetric(h.took.median(b), "in-holder-p50-ms")
			b.ReportMetric(h.took.median(b)-own, "beyond-in-holder-p50-ms")
		})
	}
}

// compare alternates, so that a busy machine is busy for both; what a reload leaves
// to be done is waited for outside of the measurement. It returns the median of the
// daemon's own start.
func compare(b *testing.B, reload, quiet func()) float64 {
	b.Helper()
	a := newAlone(b)
	var own, reloads samples
	for b.Loop() {
		for range rounds {
			own.add(a.start())
			reloads.time(reload)
			quiet()
		}
	}
	withoutMean(b)
	b.ReportMetric(own.median(b), "own-start-p50-ms")
	b.ReportMetric(reloads.median(b), "reload-p50-ms")
	b.ReportMetric(reloads.percentile(b, 95), "reload-p95-ms")
	b.ReportMetric(reloads.median(b)-own.median(b), "beyond-p50-ms")
	return own.median(b)
}
