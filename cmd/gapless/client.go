package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gapless-dev/gapless/reload/control"
)

func runtimeDirectory() control.Directory { return control.RuntimeDirectory(os.Getenv) }

// target is the service that a verb is about.
type target struct {
	socket string // --control
}

func (t *target) define(c *cobra.Command) {
	c.Flags().StringVar(&t.socket, "control", "", "`PATH` of its control socket, where it is not in the runtime directory")
	c.ValidArgsFunction = completeNames
}

// find is the service called args[0] or, without a name, the only one.
func (t *target) find(ctx context.Context, args []string) (*control.Client, error) {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	if t.socket != "" {
		if name != "" {
			return nil, wrongUsage("gapless", "a NAME and --control are two ways to say the same; give one")
		}
		name = strings.TrimSuffix(filepath.Base(t.socket), control.Suffix)
		return control.NewClient(name, t.socket), nil
	}
	return runtimeDirectory().Find(ctx, name)
}

// all are the services that run, or the one that is named.
func (t *target) all(ctx context.Context, args []string) ([]*control.Client, error) {
	if len(args) > 0 || t.socket != "" {
		c, err := t.find(ctx, args)
		return []*control.Client{c}, err
	}
	dir := runtimeDirectory()
	names, err := dir.Running(ctx)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		_, err := dir.Find(ctx, "") // which says so
		return nil, err
	}
	var clients []*control.Client
	for _, name := range names {
		clients = append(clients, control.NewClient(name, dir.Socket(name)))
	}
	return clients, nil
}

func completeNames(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, err := runtimeDirectory().Running(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// outputFlag is -o.
func outputFlag(c *cobra.Command, at *choice, words ...string) {
	choiceFlag(c.Flags(), at, "output", "o", "how to print it", words...)
}

func sayDone(t terminal, name, what string) error { return t.print("%s: %s\n", name, what) }
