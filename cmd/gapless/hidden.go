package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/gapless-dev/gapless/handoff/bind"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// The sub-commands that gapless starts itself as.
const (
	shimVerb  = "__shim"
	relayVerb = "__relay"
	trialVerb = "__trial"
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
	case trialVerb:
		os.Exit(bind.TrialDaemon())
	}
}

// myself is the command that starts the binary that runs, even when its file has
// been replaced meanwhile: the two must be of one version.
func myself() (string, error) {
	if runtime.GOOS == "linux" {
		if _, err := os.Stat("/proc/self/exe"); err == nil {
			return "/proc/self/exe", nil
		}
		// Without /proc there is only what we were called by.
		path, err := exec.LookPath(os.Args[0])
		if err != nil {
			return "", err
		}
		return filepath.Abs(path)
	}
	return os.Executable()
}

// withoutProc is what is lost where a container has no /proc; "" where there is one.
func withoutProc() string {
	if runtime.GOOS != "linux" {
		return ""
	}
	if _, err := os.Stat("/proc/self"); err == nil {
		return ""
	}
	return "/proc is not mounted: connections are not counted, a daemon that closes its listener or leaves processes behind is not noticed, and there is no way back to a replaced binary"
}
