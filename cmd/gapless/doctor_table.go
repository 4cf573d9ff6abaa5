package main

import (
	"fmt"
	"strings"
)

// text is for people: a short line a check, and below what is not as it should be.
func (d diagnosis) text(verbose, colour bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", d.where())
	names, states := len("CHECK"), len(stateMissing)
	for _, c := range d.Checks {
		names = max(names, len(c.Name))
	}
	fmt.Fprintf(&b, "%-*s  %-*s  FOUND\n", names, "CHECK", states, "STATE")
	for _, c := range d.Checks {
		state := fmt.Sprintf("%-*s", states, c.State)
		fmt.Fprintf(&b, "%-*s  %s  %s\n", names, c.Name, inColour(state, c.State, colour), short(c.Found))
	}
	for _, c := range d.Checks {
		if c.State != stateOK || verbose {
			c.explain(&b, verbose)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", d.verdict())
	return b.String()
}

// explain a check below the table.
func (c check) explain(b *strings.Builder, verbose bool) {
	fmt.Fprintf(b, "\n%s: %s\n", c.Name, c.State)
	line := func(key, text string) {
		if text != "" {
			fmt.Fprintf(b, "  %-6s %s\n", key, text)
		}
	}
	if verbose {
		line("tried", c.Tried)
	}
	if whole := plain(oneLine(c.Found)); short(c.Found) != whole {
		line("found", whole)
	}
	line("means", c.Means)
	line("do", c.Do)
}

// shortMost is in characters.
const shortMost = 84

// oneLine of an error that may have several.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// short is what fits beside the other columns.
func short(text string) string {
	text = plain(oneLine(text))
	if r := []rune(text); len(r) > shortMost {
		return strings.TrimRight(string(r[:shortMost-1]), " ") + "…"
	}
	return text
}

// where it was tried.
func (d diagnosis) where() string {
	text := fmt.Sprintf("gapless %s on %s %s, %s", d.Version, systemName(d.OS), d.Place.Kernel, d.Arch)
	if d.Place.UID == 0 {
		text += ", as root"
	} else {
		text += fmt.Sprintf(", as uid %d", d.Place.UID)
	}
	switch {
	case d.Place.Container == "":
	case strings.Contains(d.Place.Container, " "):
		text += ", in " + d.Place.Container
	default:
		text += ", in a container (" + d.Place.Container + ")"
	}
	switch {
	case d.Place.IsFirst:
		text += ", as pid 1"
	case d.Place.First != "":
		text += ", pid 1 is " + plain(d.Place.First)
	}
	if d.Place.Unit {
		text += ", started by systemd"
	}
	return text
}

func systemName(goos string) string {
	switch goos {
	case "linux":
		return "Linux"
	case "darwin":
		return "macOS (Darwin)"
	}
	return goos
}

func inColour(text, state string, on bool) string {
	codes := map[string]string{stateOK: "32", stateLimited: "33", stateMissing: "31"}
	if !on {
		return text
	}
	return "\x1b[" + codes[state] + "m" + text + "\x1b[0m"
}
