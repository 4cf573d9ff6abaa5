package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/control"
)

// share is a flag's or an argument's value in percent; 1 is all.
type share struct {
	value float64
	set   bool
}

func (s *share) String() string {
	if !s.set {
		return ""
	}
	return strconv.FormatFloat(100*s.value, 'g', -1, 64) + "%"
}

func (s *share) Type() string { return "PERCENT" }

func (s *share) Set(text string) error {
	number := strings.TrimSuffix(text, "%")
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v >= 0 && v <= 100) || strings.ContainsAny(number, "xXpP_+-") {
		return fmt.Errorf("want a share from 0%% to 100%%, as 10%%")
	}
	s.value, s.set = v/100, true
	return nil
}

// givenDuration is a duration of which 0 is not the same as none.
type givenDuration struct {
	duration
	set bool
}

func (d *givenDuration) String() string {
	if !d.set {
		return ""
	}
	return d.duration.String()
}

func (d *givenDuration) Set(text string) error {
	d.set = true
	return d.duration.Set(text)
}

// canaryFlags are those of run and of reload.
type canaryFlags struct {
	share share
	time  givenDuration
}

func (f *canaryFlags) define(s *pflag.FlagSet) {
	s.Var(&f.share, "canary", "a candidate that is ready gets so many of the new connections first, as 10%")
	s.Var(&f.time, "canary-for", "for so long, then the rest; 0s: until gapless promote")
}

// options are nil if there is to be no canary.
func (f *canaryFlags) options() (*reload.CanaryOptions, error) {
	switch {
	case !f.share.set && !f.time.set:
		return nil, nil
	case !f.time.set:
		return nil, errors.New("--canary needs --canary-for: a time, or 0s until gapless promote")
	case !f.share.set:
		return nil, errors.New("--canary-for needs --canary: a share, as 10%")
	}
	return &reload.CanaryOptions{Share: f.share.value, For: time.Duration(f.time.duration)}, nil
}

const canaryExample = `  gapless reload web --canary 5% --canary-for 0s --wait=false
  gapless canary web 50%      more, while all is well
  gapless promote web         the rest; or back: gapless rollback web`

func newCanary(t terminal) *cobra.Command {
	var at target
	var output choice
	c := &cobra.Command{
		Use: "canary [NAME] PERCENT [flags]", Short: "Give the candidate a share of new connections", Example: canaryExample,
		Long: `A candidate that is not ready yet gets it when it is, until gapless promote. It is watched: one that
ends, or fails its check three times in a row, loses its share, and the old generation has all again.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			var s share
			if err := s.Set(args[len(args)-1]); err != nil {
				return wrongUsage(c.CommandPath(), "bad share %q: %s", args[len(args)-1], err)
			}
			client, err := at.find(c.Context(), args[:len(args)-1])
			if err != nil {
				return err
			}
			result, err := client.Canary(c.Context(), s.value)
			if err != nil {
				return sayRefusal(t, err, output.value)
			}
			return sayResult(t, client.Name(), result, output.value)
		},
	}
	outputFlag(c, &output, "text", "json")
	at.define(c)
	return c
}

func newPromote(t terminal) *cobra.Command {
	return decision{
		use: "promote [NAME] [flags]", short: "Give the canary the rest: it is live", example: "  gapless promote web",
		do: (*control.Client).Promote,
	}.command(t)
}
