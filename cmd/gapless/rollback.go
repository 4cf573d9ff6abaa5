package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/control"
)

const rollbackExample = `  gapless rollback          the only service there is
  gapless rollback web`

const rollbackLong = `At once, if the old generation has not been told to stop yet (run --probation keeps it for that). Else a
new one is started: the command, environment and directory of the old one, and its program, which was
kept. Scripts, libraries and data are as they are now. A second rollback goes forth again.`

func newRollback(t terminal) *cobra.Command {
	return decision{
		use: "rollback [NAME] [flags]", short: "Go back to the previous generation", example: rollbackExample, long: rollbackLong,
		do: (*control.Client).Rollback,
	}.command(t)
}

// decision is a verb about which generation is to be live, and waits until it is.
type decision struct {
	use, short, example, long string
	do                        func(*control.Client, context.Context, time.Duration) (reload.Result, error)
}

func (d decision) command(t terminal) *cobra.Command {
	var (
		at      target
		timeout duration
		output  choice
	)
	c := &cobra.Command{
		Use: d.use, Short: d.short, Example: d.example, Long: d.long, Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := at.find(c.Context(), args)
			if err != nil {
				return err
			}
			result, err := d.do(client, c.Context(), time.Duration(timeout))
			if err != nil {
				return sayRefusal(t, err, output.value)
			}
			return sayResult(t, client.Name(), result, output.value)
		},
	}
	durationFlag(c.Flags(), &timeout, "timeout", 0, "wait no longer; it goes on (0: the service's own limits)")
	outputFlag(c, &output, "text", "json")
	at.define(c)
	return c
}
