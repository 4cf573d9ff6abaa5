package reload

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/reload/state"
)

// A live daemon shuts its listener down, and a reload is asked for before the guard
// is heard.
func TestReloadMeetsAListenerShutDown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := start(t, config(t, "habits="+dir+"/habits"))
	f.until("generation 1", live(1))
	write(t, dir+"/habits", "exit=3")
	reply := make(chan answer, 1)
	f.ask(t.Context(), func() {
		unix.Shutdown(f.runs[1].listeners[0].FD(), unix.SHUT_RDWR)
		f.request(ReloadOptions{}, reply)
	})
	if a := <-reply; a.failure == nil || !strings.Contains(a.failure.Error(), "exit status 3") {
		t.Errorf("the reload: %v", a.failure)
	}
	f.until("the listener to listen again", func(Status) bool { _, limit, err := f.liveQueue(); return err == nil && limit > 0 })
	write(t, dir+"/habits", "")
	f.mustReload()
}

// A start that comes while the service stops answers whoever stopped it: it will
// not have stopped.
func TestStartDuringAStop(t *testing.T) {
	t.Parallel()
	f := start(t, config(t, "deaf"))
	f.until("generation 1", live(1))
	stopped := make(chan error, 1)
	go func() { stopped <- f.Stop(context.WithoutCancel(t.Context())) }()
	f.until("the stop", phase(1, state.Draining))
	if _, err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-stopped:
		var failure *Failure
		if !errors.As(err, &failure) {
			t.Errorf("the stop was answered with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the stop was not answered")
	}
}
