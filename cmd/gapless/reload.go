package main

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/control"
)

const reloadExample = `  gapless reload                          the only service there is
  gapless reload web --timeout 1m && echo it is live
  gapless reload web --if-generation 7    only if nobody else was faster
  gapless reload web -E DEBUG=1 -- /srv/web/bin/web -v   another command from now on`

func newReload(t terminal) *cobra.Command {
	var (
		at      target
		wait    bool
		timeout duration
		output  choice
		o       control.ReloadOptions
		change  changeFlags
		canary  canaryFlags
	)
	c := &cobra.Command{
		Use:     "reload [NAME] [flags] [-- COMMAND [ARG...]]",
		Short:   "Replace the daemon by a new generation; answers when it is live, or why not",
		Example: reloadExample,
		Args:    atMostOneName,
		RunE: func(c *cobra.Command, args []string) error {
			name, command := beforeDash(c, args)
			var err error
			if o.Change, err = change.parse(command); err != nil {
				return wrongUsage(c.CommandPath(), "%s", err)
			}
			if o.Canary, err = canary.options(); err != nil {
				return wrongUsage(c.CommandPath(), "%s", err)
			}
			if c.Flags().Changed("if-generation") && o.IfGeneration < 1 {
				return wrongUsage(c.CommandPath(), "bad --if-generation %d: generations are numbered from 1", o.IfGeneration)
			}
			client, err := at.find(c.Context(), name)
			if err != nil {
				return err
			}
			o.NoWait, o.Timeout = !wait, time.Duration(timeout)
			result, err := client.Reload(c.Context(), o)
			if err != nil {
				return sayRefusal(t, err, output.value)
			}
			return sayResult(t, client.Name(), result, output.value)
		},
	}
	c.Flags().BoolVar(&wait, "wait", true, "wait until it is live, or has failed")
	durationFlag(c.Flags(), &timeout, "timeout", 0, "wait no longer; it goes on (0: the service's own limits)")
	c.Flags().IntVar(&o.IfGeneration, "if-generation", 0, "only if the live generation is `N`")
	c.Flags().BoolVar(&o.Supersede, "supersede", false, "give up a candidate that is not ready yet")
	canary.define(c.Flags())
	change.define(c.Flags())
	outputFlag(c, &output, "text", "json")
	at.define(c)
	return c
}

// sayRefusal gives a program that asked for JSON its answer, too.
func sayRefusal(t terminal, err error, output string) error {
	var failure *reload.Failure
	if output == "json" && errors.As(err, &failure) {
		return errors.Join(json.NewEncoder(t.out).Encode(failure), err)
	}
	return err
}

// sayResult prints nothing of a generation that was not waited for.
func sayResult(t terminal, name string, r reload.Result, output string) error {
	switch {
	case output == "json":
		return json.NewEncoder(t.out).Encode(r)
	case r.Generation == 0:
		return sayDone(t, name, "a reload was asked for")
	}
	return t.print("%s\n", r)
}
