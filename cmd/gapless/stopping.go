package main

import (
	"fmt"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/gapless-dev/gapless/reload/control"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// operation is a verb that waits for the holder and has little to tell.
type operation struct {
	use, short, example string
	check               func(*cobra.Command) error // before it is looked who runs
	do                  func(*cobra.Command, *control.Client, time.Duration) error
}

func (o operation) command(timeoutToo bool) *cobra.Command {
	var at target
	var timeout duration
	c := &cobra.Command{
		Use: o.use, Short: o.short, Example: o.example, Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.check != nil {
				if err := o.check(c); err != nil {
					return err
				}
			}
			client, err := at.find(c.Context(), args)
			if err != nil {
				return err
			}
			return o.do(c, client, time.Duration(timeout))
		},
	}
	if timeoutToo {
		durationFlag(c.Flags(), &timeout, "timeout", 0, "wait no longer; it goes on (0: the service's own limits)")
	}
	at.define(c)
	return c
}

func newStop(t terminal) *cobra.Command {
	return operation{
		use: "stop [NAME] [flags]", short: "Drain and stop the daemon; its sockets stay held, and clients wait",
		example: "  gapless stop web && ./migrate && gapless start web",
		do: func(c *cobra.Command, client *control.Client, timeout time.Duration) error {
			if err := client.Stop(c.Context(), timeout); err != nil {
				return err
			}
			return sayDone(t, client.Name(), "stopped; its sockets stay held")
		},
	}.command(true)
}

func newStart(t terminal) *cobra.Command {
	return operation{
		use: "start [NAME] [flags]", short: "Start the daemon again after a stop; clients that waited are served",
		example: "  gapless start web",
		do: func(c *cobra.Command, client *control.Client, timeout time.Duration) error {
			result, err := client.Start(c.Context(), timeout)
			if err != nil {
				return err
			}
			return sayResult(t, client.Name(), result, "text")
		},
	}.command(true)
}

func newShutdown(t terminal) *cobra.Command {
	return operation{
		use: "shutdown [NAME] [flags]", short: "Drain and stop the daemon, close its sockets, end the holder",
		example: "  gapless shutdown web",
		do: func(c *cobra.Command, client *control.Client, timeout time.Duration) error {
			if err := client.Shutdown(c.Context(), timeout); err != nil {
				return err
			}
			return sayDone(t, client.Name(), "ended")
		},
	}.command(true)
}

func newKill(t terminal) *cobra.Command {
	var name string
	var sig syscall.Signal
	c := operation{
		use: "kill -s SIGNAL [NAME]", short: "Send a signal to the live daemon, for log rotation and the like",
		example: "  gapless kill -s USR1 web                have it open its logs again",
		check: func(c *cobra.Command) (err error) {
			if name == "" {
				return wrongUsage(c.CommandPath(), "say which signal, as -s USR1")
			}
			if sig, err = spawn.ParseSignal(name); err != nil {
				return wrongUsage(c.CommandPath(), "bad --signal: %s", err)
			}
			return nil
		},
		do: func(c *cobra.Command, client *control.Client, _ time.Duration) error {
			number, err := client.Kill(c.Context(), sig)
			if err != nil {
				return err
			}
			return sayDone(t, client.Name(), fmt.Sprintf("%s sent to generation %d", spawn.SignalName(sig), number))
		},
	}.command(false)
	c.Flags().StringVarP(&name, "signal", "s", "", "`SIGNAL` by name or number")
	return c
}
