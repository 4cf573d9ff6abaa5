package reload

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// startBinder is a service of a daemon that binds one address by itself, whether it is named
// or not; generation 1 is live.
func startBinder(t *testing.T, named bool, change func(*Config)) (*fixture, string) {
	t.Helper()
	addr, spec := at(v4, freePort(t)), ""
	if named {
		spec = addr
	}
	cfg := binds(t, spec, "on:"+addr)
	if change != nil {
		change(&cfg)
	}
	f := start(t, cfg)
	f.until("generation 1", live(1))
	return f, addr
}

// throughLife is what a service goes through, with an address that is named and with one that
// is found.
func throughLife(t *testing.T, change func(*Config), test func(*testing.T, *fixture, string)) {
	for _, named := range []bool{true, false} {
		t.Run(fmt.Sprintf("named %t", named), func(t *testing.T) {
			t.Parallel()
			f, addr := startBinder(t, named, change)
			test(t, f, addr)
		})
	}
}

func TestBinderCanary(t *testing.T) {
	throughLife(t, nil, func(t *testing.T, f *fixture, addr string) {
		answers := make(chan error, 1)
		go func() {
			_, err := f.Reload(f.t.Context(), ReloadOptions{Canary: &CanaryOptions{Share: 0.5}})
			answers <- err
		}()
		f.until("the canary", phase(2, state.Canary))
		seen := map[string]int{}
		for range 40 {
			generation, _, _ := ask(addr)
			seen[generation]++
		}
		if seen["1"] == 0 || seen["2"] == 0 || len(seen) != 2 {
			t.Errorf("answered by %v", seen)
		}
		if _, err := f.Promote(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-answers; err != nil {
			t.Error(err)
		}
		servedBy(t, "2", addr, addr, addr, addr)
		f.until("generation 1 to be gone", alone)
	})
}

func TestBinderProbation(t *testing.T) {
	throughLife(t, func(c *Config) { c.Probation = time.Minute }, func(t *testing.T, f *fixture, addr string) {
		answers := make(chan error, 1)
		stop := f.loadAt(addr)
		go func() { _, err := f.reload(); answers <- err }()
		f.until("generation 2", live(2))
		servedBy(t, "2", addr)
		if _, err := f.rollback(); err != nil {
			t.Fatal(err)
		}
		stop()
		servedBy(t, "1", addr)
		<-answers
		f.until("generation 2 to be gone", phase(2, state.Gone))
		servedBy(t, "1", addr)
	})
}

func TestBinderRollback(t *testing.T) {
	throughLife(t, nil, func(t *testing.T, f *fixture, addr string) {
		f.mustReload()
		f.until("generation 1 to be gone", alone)
		stop := f.loadAt(addr)
		if _, err := f.rollback(); err != nil {
			t.Fatal(err)
		}
		stop()
		servedBy(t, "3", addr)
	})
}

func TestBinderPause(t *testing.T) {
	throughLife(t, nil, func(t *testing.T, f *fixture, addr string) {
		if err := f.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := waitingClient(t, addr)
		f.mustReload() // none of them is its yet
		after := waitingClient(t, addr)
		if waited, err := f.Resume(t.Context()); waited != 2 || err != nil {
			t.Errorf("%d had waited, %v", waited, err)
		}
		for _, answer := range []func() string{before, after} {
			if got := answer(); got != "2" {
				t.Errorf("answered by %q", got)
			}
		}
		servedBy(t, "2", addr)
		f.until("generation 1 to be gone", alone)
		f.mustReload()
		servedBy(t, "3", addr)
	})
}

func TestBinderStopAndStart(t *testing.T) {
	throughLife(t, nil, func(t *testing.T, f *fixture, addr string) {
		for _, next := range []string{"2", "3"} {
			if err := f.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			answer := waitingClient(t, addr)
			if _, err := f.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := answer(); got != next {
				t.Errorf("answered by %q, want %s", got, next)
			}
			servedBy(t, next, addr)
		}
		stop := f.loadAt(addr)
		f.mustReload()
		stop()
		servedBy(t, "4", addr)
	})
}

// Once the hold timeout is over connections are refused, and again accepted when there
// is a daemon.
func TestBinderHoldTimeout(t *testing.T) {
	throughLife(t, func(c *Config) { c.HoldTimeout = 200 * time.Millisecond }, func(t *testing.T, f *fixture, addr string) {
		if err := f.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.until("refusing", func(s Status) bool { return s.Refusing })
		nobodyAt(t, addr)
		if _, err := f.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		servedBy(t, "2", addr)
		f.mustReload()
		servedBy(t, "3", addr)
		f.until("generation 2 to be gone", alone)
	})
}

func TestBinderShutdown(t *testing.T) {
	throughLife(t, nil, func(t *testing.T, f *fixture, addr string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
		<-f.done
		if f.code != 0 || f.err != nil {
			t.Errorf("it ended with %d, %v", f.code, f.err)
		}
		nobodyAt(t, addr)
	})
}

func TestBinderStrategyReplace(t *testing.T) {
	throughLife(t, func(c *Config) { c.Strategy = StrategyReplace }, func(t *testing.T, f *fixture, addr string) {
		stop := f.loadAt(addr)
		f.mustReload()
		f.mustReload()
		stop()
		servedBy(t, "3", addr)
	})
}

// A generation that crashes again and again comes back each time, with who waits.
func TestBinderCrashesOften(t *testing.T) {
	throughLife(t, nil, func(t *testing.T, f *fixture, addr string) {
		for n := 1; n <= 4; n++ {
			request("http://" + addr + "/die")
			f.until("the next one", live(n+1))
			servedBy(t, fmt.Sprint(n+1), addr)
		}
	})
}

// Where there can be no filter, auto goes on with LISTEN_FDS and says so once, and bind is
// an error with the reason.
func TestWithoutAFilter(t *testing.T) {
	t.Run("auto", func(t *testing.T) {
		t.Parallel()
		cfg := config(t)
		cfg.Shim = append(append([]string{}, cfg.Shim[0], "__filteredshim"), cfg.Shim[2:]...)
		f := start(t, cfg)
		f.until("generation 1", live(1))
		f.mustReload()
		told := 0
		for _, e := range f.mustEvents() {
			if e.Kind == "bind.note" {
				told++
				if !strings.Contains(e.Text, "filter") {
					t.Errorf("it is told that %s", e.Text)
				}
			}
		}
		if told != 1 {
			t.Errorf("it is told %d times", told)
		}
	})
	t.Run("bind", func(t *testing.T) {
		t.Parallel()
		addr := at(v4, freePort(t))
		cfg := binds(t, addr, "on:"+addr)
		cfg.Delivery = DeliveryBind
		cfg.Shim = []string{cfg.Shim[0], "__filteredshim"}
		f := start(t, cfg)
		<-f.done
		if f.err == nil || !strings.Contains(f.err.Error(), "can't be served by bind: ") || !strings.Contains(f.err.Error(), "filter") {
			t.Errorf("it ended with %v", f.err)
		}
	})
}
