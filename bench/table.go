package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Table writes one line a result, for people. The columns may change; JSON is
// for programs.
func Table(w io.Writer, rows ...*Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "load\trequests\tfailed\tp50\tp99\tp99.9\tmax\tgap\trate/s\tgenerations\thow")
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(cells(r), "\t"))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("can't write table: %w", err)
	}
	return nil
}

func cells(r *Result) []string {
	return []string{
		r.Name,
		fmt.Sprint(r.Sent),
		fmt.Sprint(r.Failed()),
		short(r.Latency.P50()), short(r.Latency.P99()), short(r.Latency.P999()), short(r.Latency.Max()),
		short(r.LongestGap),
		rateCell(r),
		fmt.Sprint(len(r.Generations)),
		howCell(r),
	}
}

// rateCell says what was achieved, and of how much, if it was not.
func rateCell(r *Result) string {
	achieved := fmt.Sprintf("%.0f", r.AchievedRate)
	if r.OfferedRate > 0 && !r.RateMet {
		return fmt.Sprintf("%s of %.0f", achieved, r.OfferedRate)
	}
	return achieved
}

// howCell names the failures by class, known ones first.
func howCell(r *Result) string {
	order := Classes()
	for _, class := range slices.Sorted(maps.Keys(r.Failures)) {
		if !slices.Contains(order, class) {
			order = append(order, class)
		}
	}
	var parts []string
	for _, class := range order {
		if n := r.Failures[class]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, class))
		}
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

// short rounds to about three digits.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
