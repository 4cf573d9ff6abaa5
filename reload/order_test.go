package reload

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
