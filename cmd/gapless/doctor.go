package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gapless-dev/gapless/reload/spawn"
)

const doctorExample = `  gapless doctor
  gapless doctor --verbose
  gapless doctor -o json | jq -r '.checks[] | select(.state!="ok").name'
  docker run --rm IMAGE gapless doctor     what a container with these flags allows`

const doctorLong = `Each check tries the thing, on sockets and processes of its own, and leaves nothing behind. ok: as it should be;
limited: gapless works, and what it costs is said below; missing: without it there is no such thing here.
Exit code 0: generations can overlap, for daemons that bind by themselves too; 1: they can't, and what is missing is said.`

// The states of a check.
const (
	stateOK      = "ok"
	stateLimited = "limited"
	stateMissing = "missing"
)

// check is one thing that was tried.
type check struct {
	Name  string `json:"name"`
	State string `json:"state"`
	// Needed: two generations can't overlap without it.
	Needed bool   `json:"needed"`
	Tried  string `json:"tried"`
	Found  string `json:"found"`
	Means  string `json:"means,omitempty"` // here, where it is not ok or there is something to know
	Do     string `json:"do,omitempty"`
}

// diagnosis is all of it.
type diagnosis struct {
	OK      bool        `json:"ok"`
	Missing []string    `json:"missing"` // of what is needed
	Version string      `json:"version"`
	OS      string      `json:"os"`
	Arch    string      `json:"arch"`
	Place   spawn.Place `json:"place"`
	Checks  []check     `json:"checks"`
	TookMS  int64       `json:"took_ms"`
}

// doctorVerb is doctor as it was asked for.
type doctorVerb struct {
	terminal
	output  choice
	verbose bool
	timeout duration
}

func newDoctor(t terminal) *cobra.Command {
	v := doctorVerb{terminal: t}
	c := &cobra.Command{
		Use: "doctor [flags]", Short: "What this kernel, container and user allow, and what that means here", Example: doctorExample, Long: doctorLong, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return v.run(c.Context()) },
	}
	outputFlag(c, &v.output, "table", "json")
	c.Flags().BoolVarP(&v.verbose, "verbose", "v", false, "say of each check what was tried and what it means")
	durationFlag(c.Flags(), &v.timeout, "timeout", 2*time.Second, "what is not answered by then counts as missing")
	return c
}

func (v *doctorVerb) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(v.timeout), fmt.Errorf("it was given %s", v.timeout.String()))
	defer cancel()
	d := diagnose(ctx)
	if err := v.show(d); err != nil {
		return err
	}
	if !d.OK {
		return exitCode(codeFailed)
	}
	return nil
}

func (v *doctorVerb) show(d diagnosis) error {
	if v.output.value == "table" {
		return v.print("%s", d.text(v.verbose, colours(v.out)))
	}
	out := json.NewEncoder(v.out)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	if err := out.Encode(d); err != nil {
		return fmt.Errorf("can't print: %w", err)
	}
	return nil
}

// judge: what is needed and missing decides.
func (d *diagnosis) judge() {
	d.Missing = []string{}
	for _, c := range d.Checks {
		if c.Needed && c.State == stateMissing {
			d.Missing = append(d.Missing, c.Name)
		}
	}
	d.OK = len(d.Missing) == 0
}

// count of the checks in a state.
func (d diagnosis) count(state string) (n int) {
	for _, c := range d.Checks {
		if c.State == state {
			n++
		}
	}
	return n
}

// verdict is the last line.
func (d diagnosis) verdict() string {
	if !d.OK {
		return fmt.Sprintf("Generations can't overlap here as they should; missing: %s.", strings.Join(d.Missing, ", "))
	}
	text := "Generations can overlap here, whatever the daemon."
	if n := d.count(stateLimited) + d.count(stateMissing); n == 1 {
		text += " 1 check is less than ok."
	} else if n > 1 {
		text += fmt.Sprintf(" %d checks are less than ok.", n)
	}
	return text
}
