package main

import (
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
)

// harmedOutput is a holder's standard output and error, to which something happens.
type harmedOutput struct {
	to   *os.File
	harm func()
}

func (o *harmedOutput) give(c *exec.Cmd) { c.Stdout, c.Stderr = o.to, o.to }

func pipeOutput(t *testing.T) *harmedOutput {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return &harmedOutput{to: w, harm: sync.OnceFunc(func() { r.Close() })}
}

func fullOutput(t *testing.T) *harmedOutput {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &harmedOutput{to: f, harm: func() {}}
}

// Output that can't be written is lost, and costs nothing else: the reader has gone
// before the holder began or goes later, or the disk is full. The daemon, whose output
// goes the same way, notices nothing.
func TestOutputThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	for name, output := range map[string]func(*testing.T) (w *harmedOutput){
		"nobody reads from the start": func(t *testing.T) *harmedOutput { o := pipeOutput(t); o.harm(); return o },
		"the reader goes":             pipeOutput,
		"the disk is full":            fullOutput,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := output(t)
			h := hold(t, o.give, "--log-level", "debug", "--", "daemon", "chatty")
			stop := h.load()
			o.harm()
			for range 3 {
				h.mustReload()
				h.cmd.Process.Signal(syscall.SIGUSR1) // says something
			}
			h.cmd.Process.Signal(syscall.SIGHUP)
			h.live(5)
			h.quiet()
			stop()
			if err := h.client.Shutdown(h.within(), patience); err != nil {
				t.Error(err)
			}
			<-h.ended
			if got := h.cmd.ProcessState.ExitCode(); got != 0 {
				t.Errorf("it ended: %s", h.cmd.ProcessState)
			}
		})
	}
}
