package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/state"
)

// A holder that is stopped (SIGSTOP, or its machine is) costs no client anything, and
// what it waited for and came meanwhile is not too late when it goes on.
func TestHolderIsStopped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	what, ready := filepath.Join(dir, "what"), filepath.Join(dir, "ready")
	mustWrite(t, what, "until "+ready)
	mustWrite(t, ready, "")
	const limit = time.Second
	h := hold(t, nil, "--ready-timeout", limit.String(), "--", "daemon", "from", what)
	h.mustReload()
	h.quiet()
	files := h.settledFiles()
	stop := h.load()
	if err := os.Remove(ready); err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	go func() { _, err := h.reload(); told <- err }()
	h.status("the candidate", func(s reload.Status) bool {
		g := s.Generation(3)
		return g != nil && g.PID != 0 && g.Phase == state.Starting
	})
	h.cmd.Process.Signal(syscall.SIGSTOP)
	mustWrite(t, ready, "")
	time.Sleep(2 * limit) // the time that passes is what this is about
	h.cmd.Process.Signal(syscall.SIGCONT)
	if err := <-told; err != nil {
		t.Errorf("the reload: %v", err)
	}
	h.cmd.Process.Signal(syscall.SIGSTOP) // while it settles, or about then
	time.Sleep(2 * limit)
	h.cmd.Process.Signal(syscall.SIGCONT)
	h.quiet()
	h.mustReload()
	h.quiet()
	stop()
	h.mustBeAsBefore(files)
}
