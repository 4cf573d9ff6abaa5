package main

import (
	"os"
	"runtime"

	"github.com/gapless-dev/gapless/reload/spawn"
)

// The sub-commands that gapless starts itself as.
const (
	shimVerb  = "__shim"
	relayVerb = "__relay"
)

// hidden runs such a sub-command and does not return, or does nothing. It comes
// before everything else: the shim stands between a reload and its daemon.
func hidden(args []string) {
	if len(args) < 2 {
		return
	}
	switch args[1] {
	case shimVerb:
		spawn.Shim(args[2:])
	case relayVerb:
		outlivePipes()
		os.Exit(relayWorker(args[2:]))
	}
}

// myself is the command that starts the binary that runs, even when its file has
// been replaced meanwhile: the two must be of one version.
func myself() (string, error) {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe", nil
	}
	return os.Executable()
}
