package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/control"
)

const statusExample = `  gapless status
  gapless status web --watch
  gapless status web -o json | jq -r '.generations[] | select(.state=="live").pid'`

const statusLong = `A row a generation. CONNS is its open connections, counted now and without its help; OLDEST is how old the
oldest of them is at least, as far as gapless has seen; QUEUE is those that wait to be accepted, of how many
can. Without NAME, all services; as JSON an object for the one that is named, else an array.`

// watchEvery is how often --watch looks.
const watchEvery = time.Second

// statusVerb is status as it was asked for.
type statusVerb struct {
	terminal
	at     target
	args   []string
	output choice
	watch  bool
}

func newStatus(t terminal) *cobra.Command {
	v := statusVerb{terminal: t}
	c := &cobra.Command{
		Use: "status [NAME] [flags]", Short: "What runs", Example: statusExample, Long: statusLong, Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			v.args = args
			if v.watch {
				return v.follow(c.Context())
			}
			return v.once(c.Context())
		},
	}
	outputFlag(c, &v.output, "table", "json")
	c.Flags().BoolVarP(&v.watch, "watch", "w", false, "look again every second")
	v.at.define(c)
	return c
}

// follow clears a terminal only; elsewhere what was printed stays, as JSON one
// value a line.
func (v *statusVerb) follow(ctx context.Context) error {
	clear := v.output.value == "table" && isTerminal(v.out)
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	for {
		if clear {
			if err := v.print("\x1b[H\x1b[2J"); err != nil {
				return err
			}
		}
		if err := v.once(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

// once prints what answers, and fails if something did not.
func (v *statusVerb) once(ctx context.Context) error {
	clients, err := v.at.all(ctx, v.args)
	if err != nil {
		return err
	}
	all, failed := statuses(ctx, clients)
	if len(all) > 0 {
		if err := v.show(all); err != nil {
			return err
		}
	}
	return failed
}

func statuses(ctx context.Context, clients []*control.Client) (all []reload.Status, failed error) {
	for _, c := range clients {
		s, err := c.Status(ctx)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		all = append(all, s)
	}
	return all, failed
}

func (v *statusVerb) show(all []reload.Status) error {
	if v.output.value == "table" {
		return printTable(v.out, all)
	}
	var value any = all
	if len(v.args) > 0 || v.at.socket != "" {
		value = all[0]
	}
	out := json.NewEncoder(v.out)
	if !v.watch {
		out.SetIndent("", "  ")
	}
	if err := out.Encode(value); err != nil {
		return fmt.Errorf("can't print the status: %w", err)
	}
	return nil
}
