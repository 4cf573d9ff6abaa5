package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gapless-dev/gapless/reload/control"
)

func newPause(t terminal) *cobra.Command {
	return operation{
		use: "pause [NAME] [flags]", short: "Have new connections wait in the backlog; open ones go on",
		example: "  gapless pause web && ./switch-database && gapless resume web",
		do: func(c *cobra.Command, client *control.Client, _ time.Duration) error {
			if err := client.Pause(c.Context()); err != nil {
				return err
			}
			return sayDone(t, client.Name(), "paused; new connections wait")
		},
	}.command(false)
}

func newResume(t terminal) *cobra.Command {
	return operation{
		use: "resume [NAME] [flags]", short: "End a pause; connections that waited are served",
		example: "  gapless resume web",
		do: func(c *cobra.Command, client *control.Client, _ time.Duration) error {
			waited, err := client.Resume(c.Context())
			if err != nil {
				return err
			}
			noun := "connections"
			if waited == 1 {
				noun = "connection"
			}
			return sayDone(t, client.Name(), fmt.Sprintf("resumed; %d %s had waited", waited, noun))
		},
	}.command(false)
}
