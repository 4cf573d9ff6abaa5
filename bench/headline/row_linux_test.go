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

const tableHead = "| server | `gapless run …` | its socket | requests | failed | p50 | p99 | max |\n|---|---|---|--:|--:|--:|--:|--:|"

// row is for the README. Latencies are of all requests, from the time at which each
// was due; who pauses before its request does so on top.
func (r *trial) row(t *testing.T, how string, results []*bench.Result) string {
	t.Helper()
	all := bench.Merge(r.name, results...)
	return fmt.Sprintf("| %s | `%s` | %s | %d | %d | %s | %s | %s |", r.called(t), r.started(), how, all.Sent, all.Failed(),
		milliseconds(all.Latency.P50()), milliseconds(all.Latency.P99()), milliseconds(all.Latency.Max()))
}

// called: its name, version, and what is to be known of it.
func (r *trial) called(t *testing.T) string {
	t.Helper()
	name, rest, _ := strings.Cut(r.name, ",")
	name += " " + r.printedVersion(t)
	for _, more := range []string{strings.TrimSpace(rest), r.note} {
		if more != "" {
			name += ", " + more
		}
	}
	return name
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
