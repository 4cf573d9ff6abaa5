package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gapless-dev/gapless/bench"
)

// screen is where people read; all words to them are here. On a terminal the line
// of progress is written over, elsewhere each is a line of its own.
type screen struct {
	to       io.Writer
	terminal bool
	colour   bool
}

func newScreen(f *os.File) *screen {
	info, err := f.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	return &screen{to: f, terminal: terminal, colour: terminal && os.Getenv("NO_COLOR") == ""}
}

func (s *screen) say(format string, args ...any) { fmt.Fprintf(s.to, format+"\n", args...) }

func (s *screen) begin(srv server, m manner) {
	s.say("\n%s: a %s every second (%s)", srv.name, m.verb, m.how)
	s.line("  clients send ...")
}

func (s *screen) progress(m manner, i, times int, c *crowd) {
	sent, failed := c.soFar()
	s.line("  %s %d of %d: %d requests so far, %d failed", m.verb, i, times, sent, failed)
}

func (s *screen) end(srv server, c *crowd) {
	var sent, failed int
	for _, r := range c.results {
		sent, failed = sent+r.Sent, failed+r.Failed()
	}
	s.line("  done, %d times: %d requests, %d failed", srv.times, sent, failed)
	if s.terminal {
		s.say("")
	}
}

// line is overwritten by the next.
func (s *screen) line(format string, args ...any) {
	if s.terminal {
		fmt.Fprintf(s.to, "\r\x1b[K"+format, args...)
		return
	}
	s.say(format, args...)
}

// table has a group of rows for each server and way to replace it.
func (s *screen) table(rows []row) {
	t := tabwriter.NewWriter(s.to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nwhat clients saw\trequests\tfailed\tp50\tp99\tmax\tlongest gap\tgenerations\thow they failed")
	group := ""
	for _, r := range rows {
		if g := r.server + ", " + r.verb; g != group {
			group = g
			fmt.Fprintln(t, g+strings.Repeat("\t", columns-1))
		}
		fmt.Fprintln(t, strings.Join(r.cells(), "\t"))
	}
	t.Flush()
}

const columns = 9

func (r row) cells() []string {
	return []string{
		"  " + r.Name, fmt.Sprint(r.Sent), fmt.Sprint(r.Failed()),
		ms(r.Latency.P50()), ms(r.Latency.P99()), ms(r.Latency.Max()), ms(r.LongestGap),
		fmt.Sprint(len(r.Generations)), failures(r.Result),
	}
}

// failures is how many of each class.
func failures(r *bench.Result) string {
	var parts []string
	for _, class := range bench.Classes() {
		if n := r.Failures[class]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, class))
		}
	}
	return strings.Join(parts, ", ")
}

func ms(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// verdict says in a line what the table means, and returns what gapless lost.
func (s *screen) verdict(rows []row, note string) int {
	plain, lost, closed, late := 0, 0, 0, false
	for _, r := range rows {
		late = late || !r.RateMet
		theirs := closedByServer(r.Result)
		if r.gapless {
			lost, closed = lost+r.Failed()-theirs, closed+theirs
		} else {
			plain += r.Failed() - theirs
		}
	}
	if note != "" {
		s.say("\n%s", note)
	}
	if closed > 0 {
		s.say("\nNot counted below: %d met a kept-alive connection just as this server, told to stop, closed it. HTTP\n"+
			"allows that, clients send again (RFC 9110, 9.2.2). A server that drains with handoff/activation has none.", closed)
	}
	if late {
		s.say("\nThis machine was too busy to send all requests in time; the latencies say more about it than about gapless.")
	}
	s.say("\n%s", s.bold(lost == 0, fmt.Sprintf("Plain restarts lost %d requests; gapless lost %d.", plain, lost)))
	return lost
}

// closedByServer are requests that met a kept-alive connection as the server, which
// was told to stop, closed it.
func closedByServer(r *bench.Result) int {
	n := 0
	if r.Kind == bench.KeepAlive {
		for _, of := range r.OnReused {
			n += of
		}
	}
	return n
}

func (s *screen) bold(good bool, text string) string {
	if !s.colour {
		return text
	}
	code := "1;31" // red
	if good {
		code = "1;32"
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
