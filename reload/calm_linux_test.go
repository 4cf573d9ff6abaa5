package reload

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// The back-off grows with each crash, and is forgotten when the replacement has lived
// for a minute, not before.
func TestBackOffIsForgottenAfterAMinute(t *testing.T) {
	w := newWorld(t.TempDir(), plan{endpoints: 1, mode: ready.Delay, hold: time.Hour, restart: RestartOnFailure, maxDraining: 4, habits: []habits{{}}})
	synctest.Test(t, func(t *testing.T) {
		w.shut = make(chan struct{}, 1)
		s, err := newService(t.Context(), w.plan.config(w), w.system())
		if err != nil {
			t.Fatal(err)
		}
		w.s = s
		l := &life{world: w, done: make(chan struct{})}
		go l.run(t.Context())
		l.rest()
		for n, wait := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
			w.latest.endBy(spawn.Exit{Code: 7})
			l.rest()
			if st, err := s.State(t.Context()); err != nil || st.Live() != nil || st.Crashes != n+1 {
				t.Errorf("right after crash %d: %+v, %v", n+1, st, err)
			}
			time.Sleep(wait)
			l.rest()
			if st, err := s.State(t.Context()); err != nil || st.Live() == nil {
				t.Errorf("%s after crash %d nobody is live: %v", wait, n+1, err)
			}
		}
		for _, c := range []struct {
			wait    time.Duration
			crashes int
		}{{calmAfter - time.Second, 3}, {2 * time.Second, 0}} {
			time.Sleep(c.wait)
			l.rest()
			if st, err := s.State(t.Context()); err != nil || st.Crashes != c.crashes {
				t.Errorf("%d crashes are remembered, want %d; %v", st.Crashes, c.crashes, err)
			}
		}
		s.Interrupt()
		s.Interrupt()
		<-l.done
	})
}
