//go:build linux

package speed

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	weightReloads = 50
	// idleFor is how long the holder is watched while nothing happens.
	idleFor = 10 * time.Second
)

// BenchmarkHolder weighs the process of `gapless run`: its memory, and how often it
// wakes up when there is nothing to do, after the start and after 50 reloads.
// Wake-ups are the context switches of all its threads: a thread that is not woken
// makes none.
func BenchmarkHolder(b *testing.B) {
	h := hold(b, "-l", "http=127.0.0.1:0", "--", built.Daemon)
	for b.Loop() {
		h.weigh("start")
		for range weightReloads {
			h.reload()
		}
		h.quiet()
		h.weigh("50-reloads")
	}
	withoutMean(b)
}

func (h *holder) weigh(after string) {
	h.b.Helper()
	// What a reload leaves behind is not idling: the last look for foreign listeners,
	// the collector's sweep. Go's runtime wakes up by itself once a minute (sysmon).
	time.Sleep(2 * time.Second)
	before := h.switches()
	time.Sleep(idleFor)
	h.b.ReportMetric(float64(h.switches()-before), "wakeups-in-10s-after-"+after)
	h.b.ReportMetric(h.megabytes("status", "VmRSS"), "RSS-MB-after-"+after)
	h.b.ReportMetric(h.megabytes("smaps_rollup", "Pss"), "PSS-MB-after-"+after)
}

// switches of all threads; the names are those of proc_pid_status(5).
func (h *holder) switches() int {
	h.b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", h.PID()))
	if err != nil || len(tasks) == 0 {
		h.b.Fatalf("the holder has no threads: %v", err)
	}
	sum := 0
	for _, task := range tasks {
		sum += h.number(task, "voluntary_ctxt_switches") + h.number(task, "nonvoluntary_ctxt_switches")
	}
	return sum
}

func (h *holder) megabytes(file, name string) float64 {
	return float64(h.number(fmt.Sprintf("/proc/%d/%s", h.PID(), file), name)) / 1000 * 1.024
}

// number reads "name: number" from a file of /proc.
func (h *holder) number(path, name string) int {
	h.b.Helper()
	f, err := os.Open(path)
	if err != nil {
		h.b.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		value, ok := strings.CutPrefix(lines.Text(), name+":")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(strings.Fields(value)[0])
		if err != nil {
			h.b.Fatal(err)
		}
		return n
	}
	h.b.Fatalf("%s does not tell %s", path, name)
	return 0
}
