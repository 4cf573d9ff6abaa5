package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gapless-dev/gapless/reload/spawn"
)

// What shells end with.
const (
	codeNotRunnable = 126
	codeNotFound    = 127
)

func newListenPID(t terminal) *cobra.Command {
	c := &cobra.Command{
		Use:     "listen-pid -- COMMAND [ARG...]",
		Short:   "Set LISTEN_PID to this process and become COMMAND, for wrappers that fork",
		Example: "  gapless run -l 8080 -- sh -c 'cd app; gapless listen-pid -- ./server & wait'",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, command []string) error {
			return become(t, command)
		},
	}
	c.Flags().SetInterspersed(false)
	return c
}

// become returns only if the command can't be run.
func become(t terminal, command []string) error {
	path, err := exec.LookPath(command[0])
	if err == nil || errors.Is(err, exec.ErrDot) {
		err = syscall.Exec(path, command, spawn.SetListenPID(os.Environ()))
	}
	fmt.Fprintf(t.err, "gapless: can't run %s: %s\n", command[0], reasonOf(err))
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitCode(codeNotFound)
	}
	return exitCode(codeNotRunnable)
}

func reasonOf(err error) error {
	var lookup *exec.Error
	if errors.As(err, &lookup) {
		return lookup.Err
	}
	return err
}
