package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gapless-dev/gapless/reload"
)

// changeFlags are what a reload is to make different.
type changeFlags struct {
	setenv  []string
	envFile string
}

func (f *changeFlags) define(s *pflag.FlagSet) {
	s.StringArrayVarP(&f.setenv, "setenv", "E", nil, "`K=V` for its environment from now on, or K to take ours; may be repeated")
	s.StringVar(&f.envFile, "env-file", "", "`FILE` of K=V lines, from now on read at each start")
}

// parse makes what was typed here good there, in the holder's directory.
func (f *changeFlags) parse(command []string) (reload.Change, error) {
	c := reload.Change{Command: command}
	if f.envFile != "" {
		path, err := filepath.Abs(f.envFile)
		if err != nil {
			return c, fmt.Errorf("bad --env-file: %w", err)
		}
		if _, err := os.Stat(path); err != nil {
			return c, fmt.Errorf("bad --env-file: %w", err)
		}
		c.EnvFile = path
	}
	var err error
	c.Set, err = daemonEnv(nil, f.setenv)
	return c, err
}

// beforeDash parts what stands before -- from the command after it.
func beforeDash(c *cobra.Command, args []string) (names, command []string) {
	if at := c.ArgsLenAtDash(); at >= 0 {
		return args[:at], args[at:]
	}
	return args, nil
}

func atMostOneName(c *cobra.Command, args []string) error {
	names, command := beforeDash(c, args)
	if len(names) > 1 {
		return fmt.Errorf("at most one NAME is possible; a new command stands after --")
	}
	if c.ArgsLenAtDash() >= 0 && len(command) == 0 {
		return fmt.Errorf("say what to run after --")
	}
	return nil
}
