package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/state"
)

// row is a generation, in words.
type row struct {
	service, gen, state, pid, up, conns, oldest, queue, binary, reason string
}

func printTable(to io.Writer, all []reload.Status) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tGEN\tSTATE\tPID\tUP\tCONNS\tOLDEST\tQUEUE\tBINARY\tREASON")
	for _, s := range all {
		for _, r := range rowsOf(s) {
			fmt.Fprintln(w, strings.Join([]string{r.service, r.gen, r.state, r.pid, r.up, r.conns, r.oldest, r.queue, r.binary, r.reason}, "\t"))
		}
	}
	for _, s := range all {
		for _, e := range s.Endpoints {
			if e.Steering == "shared" {
				fmt.Fprintf(w, "%s: its generations share one socket at %s\n", s.Name, e.Addr)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("can't print the status: %w", err)
	}
	return nil
}

// rowsOf are the generations that run, and the last one to end if none took its
// place; a service that nobody serves has a row for its waiting clients.
func rowsOf(s reload.Status) []row {
	var rows []row
	newest := len(s.Generations) - 1
	for i, g := range s.Generations {
		if g.Phase.Running() || i == newest {
			rows = append(rows, rowOf(s, g))
		}
	}
	if s.Live() == nil || !s.Paused.IsZero() {
		rows = append(rows, waitingRow(s))
	}
	return rows
}

func rowOf(s reload.Status, g state.Generation) row {
	r := row{service: s.Name, gen: strconv.Itoa(g.Number), state: string(g.Phase), pid: "-", up: "-", conns: "-", oldest: "-", queue: "-",
		binary: cmp.Or(g.Binary, "-"), reason: cmp.Or(g.Failure, g.Reason)}
	if !g.Phase.Running() {
		return r
	}
	if g.Phase == state.Canary {
		r.state += fmt.Sprintf(" %.4g%%", 100*s.Share)
	}
	m := s.MeasuredOf(g)
	r.queue = fmt.Sprintf("%d/%d", m.Queue, m.QueueLimit)
	if m.Connections >= 0 {
		r.conns = strconv.Itoa(m.Connections)
	}
	if m.Connections > 0 {
		r.oldest = age(m.Oldest) + "+" // it was open before anybody looked
	}
	if g.PID != 0 {
		r.pid, r.up, r.binary = strconv.Itoa(g.PID), age(m.Age), binaryOf(g)
	}
	return r
}

// waitingRow is for what nobody serves.
func waitingRow(s reload.Status) row {
	r := row{service: s.Name, gen: "-", state: "waiting", pid: "-", up: "-", conns: "-", oldest: "-", queue: "-", binary: "-", reason: "no live generation"}
	if s.Goal == state.Stop {
		r.state, r.reason = "stopped", "gapless stop"
	}
	if !s.Paused.IsZero() && s.Goal != state.Stop {
		r.state, r.reason = "paused", "gapless pause"
	}
	if s.Refusing {
		r.reason += "; connections are refused"
	}
	waiting, limit := 0, 0
	for _, q := range s.Queues {
		waiting, limit = waiting+q.Queue, limit+q.QueueLimit
	}
	if limit > 0 {
		r.queue = fmt.Sprintf("%d/%d", waiting, limit)
	}
	return r
}

// binaryOf says whether the file that runs is still the one at its path.
func binaryOf(g state.Generation) string {
	now, err := os.Readlink("/proc/" + strconv.Itoa(g.PID) + "/exe")
	if err != nil {
		return cmp.Or(g.Binary, "-") // not ours to see
	}
	path, gone := strings.CutSuffix(now, " (deleted)")
	if !gone {
		return path
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return path + " (deleted)"
	}
	return path + " (replaced)"
}

// age is a duration in its two largest units.
func age(d time.Duration) string {
	day := 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < day:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d/day), int(d%day/time.Hour))
}

// sentence is the row as a line of the log.
func (r row) sentence() string {
	if r.gen == "-" {
		return fmt.Sprintf("%s: %s, %s, queue %s", r.service, r.state, r.reason, r.queue)
	}
	return fmt.Sprintf("%s: generation %s %s, pid %s, up %s, %s connections, queue %s, %s", r.service, r.gen, r.state, r.pid, r.up, r.conns, r.queue, r.reason)
}
