package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/gapless-dev/gapless/reload"
)

func newEvents(t terminal) *cobra.Command {
	var at target
	var follow bool
	var output choice
	c := &cobra.Command{
		Use:     "events [NAME] [flags]",
		Short:   "What happened to a service",
		Example: "  gapless events web -f\n  gapless events web -o json | jq .event",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := at.find(c.Context(), args)
			if err != nil {
				return err
			}
			for e, err := range client.Events(c.Context(), follow) {
				if err != nil {
					return err
				}
				if err := sayEvent(t, e, output.value); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens, until the service ends")
	outputFlag(c, &output, "text", "json")
	at.define(c)
	return c
}

func sayEvent(t terminal, e reload.Event, output string) error {
	if output == "json" {
		return json.NewEncoder(t.out).Encode(e)
	}
	return t.print("%s  %-5s  %-20s  %s\n", e.Time.Format(logTime), e.Level, e.Kind, e.Text)
}
