package reload

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload/ready"
)

// early is a daemon that listens before it can serve, as databases do, which turn
// clients away until they have read their data; dir/go lets it say that it is ready.
func early(t *testing.T, named bool, dir string, steps ...string) (Config, string) {
	t.Helper()
	addr, spec := at(v4, freePort(t)), ""
	if named {
		spec = addr
	}
	own := strings.Fields("early: socket:s,4,reuseaddr bind:s," + addr + " listen:s serve:s")
	cfg := binds(t, spec, append(append(own, steps...), "wait:"+dir+"/go", "ready:")...)
	cfg.Ready = ready.Options{Mode: ready.Notify}
	write(t, dir+"/go", "")
	return cfg, addr
}

// Clients that wait are let in when a daemon is ready, not when it listens.
func TestClientsWaitUntilItIsReady(t *testing.T) {
	for _, c := range []struct {
		name  string
		named bool
		mode  ready.Mode
	}{
		{"named", true, ready.Notify},
		{"found", false, ready.Notify},
		{"by what it said before", true, ready.Auto},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cfg, addr := early(t, c.named, dir)
			cfg.Strategy, cfg.Ready.Mode = StrategyReplace, c.mode
			f := start(t, cfg)
			f.until("generation 1", live(1))
			f.until("it to say so", func(s Status) bool { return s.Notifies })
			f.lateReady(addr, dir+"/go", 2, func() { f.reloads(ReloadOptions{Reason: "test"}) })
			st := f.until("generation 1 to be gone", alone)
			f.lateReady(addr, dir+"/go", 3, func() { syscall.Kill(st.Live().PID, syscall.SIGKILL) })
			f.mustReload()
			servedBy(t, "4", addr)
		})
	}
}

// lateReady has a client come before the next one listens, and one after that; what
// begins the next one is begin.
func (f *fixture) lateReady(addr, gate string, next int, begin func()) {
	f.t.Helper()
	if err := os.Remove(gate); err != nil {
		f.t.Fatal(err)
	}
	begin()
	f.until("the end of the one before", func(s Status) bool { return s.Live() == nil })
	before := waitingClient(f.t, addr)
	f.until("the next one to listen", f.bound(next))
	after := waitingClient(f.t, addr)
	write(f.t, gate, "")
	for _, answer := range []func() string{before, after} {
		if got := answer(); got != fmt.Sprint(next) {
			f.t.Errorf("answered by %q, want %d", got, next)
		}
	}
	servedBy(f.t, fmt.Sprint(next), addr)
}

func (f *fixture) bound(generation int) func(Status) bool {
	return func(Status) bool {
		for _, e := range f.mustEvents() {
			if e.Kind == "listener.bound" && e.Generation == generation {
				return true
			}
		}
		return false
	}
}

// Nobody waits for ever for one that ends each time before it is ready.
func TestClientsOfOneThatIsNeverReady(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg, addr := early(t, true, dir, "2/wait:"+dir+"/end", "2/exit:1", "3/exit:1")
	cfg.HoldTimeout, cfg.Restart = 300*time.Millisecond, RestartAlways
	f := start(t, cfg)
	st := f.until("generation 1", live(1))
	syscall.Kill(st.Live().PID, syscall.SIGKILL)
	f.until("the next one to listen", f.bound(2))
	answer := waitingClient(t, addr)
	write(t, dir+"/end", "")
	f.until("refusal", f.happened("hold.refusing"))
	if got := answer(); got == "2" || got == "early" {
		t.Errorf("answered by %q", got)
	}
	f.until("one that is ready", live(4))
	servedBy(t, "4", addr)
}
