package headline

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
)

const tableHead = "| server | `gapless run …` | its socket | reloads | requests | failed | p50 | p99 | max | generations told by | |\n" +
	"|---|---|---|--:|--:|--:|--:|--:|--:|---|---|"

// row is for the README. Latencies are of all requests, from the time at which each
// was due; who pauses before its request does so on top.
func (r *trial) row(t *testing.T, how string, results []*bench.Result) string {
	t.Helper()
	all := bench.Merge(r.name, results...)
	return fmt.Sprintf("| %s %s | `%s` | %s | %d | %d | %d | %s | %s | %s | %s | %s |",
		r.name, r.printedVersion(t), r.started(), how, unmodifiedReloads, all.Sent, all.Failed(),
		milliseconds(all.Latency.P50()), milliseconds(all.Latency.P99()), milliseconds(all.Latency.Max()), r.told, r.note)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// started is what was typed, for port 8080.
func (r *trial) started() string {
	var words []string
	if r.listens != "" {
		words = append(words, "-l", r.listens)
	}
	words = append(append(append(words, r.flags...), "--", filepath.Base(r.command[0])), r.command[1:]...)
	return strings.ReplaceAll(strings.Join(words, " "), "PORT", "8080")
}

var dotted = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)

func (r *trial) printedVersion(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(r.version[0], r.version[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("can't ask %s for its version: %v", r.version[0], err)
	}
	return dotted.FindString(string(out))
}
