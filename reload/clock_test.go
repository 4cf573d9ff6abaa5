package reload

import (
	"strings"
	"testing"
	"time"
)

// The clock of the machine is set, by an hour or to 1970, while a generation starts, is
// on probation, drains, crashed and waits for its next start, and while nobody is live:
// all comes as if it had not been. A test can't set the clock, so it makes of all that
// the service's state holds what the clock would have made of it (a time without the
// monotonic reading, elsewhere), and looks that what waits are measured by has the reading.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour, "to 1970": -time.Since(time.Unix(0, 0))} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			cfg.Probation, cfg.HoldTimeout = 300*time.Millisecond, 500*time.Millisecond
			f := start(t, cfg)
			f.until("generation 1", live(1))
			f.setClock(jump)
			answer := make(chan error, 1)
			go func() {
				r, err := f.reload()
				if err == nil && !r.Stood {
					t.Errorf("the reload: %+v", r)
				}
				answer <- err
			}()
			f.until("the start of generation 2", func(s Status) bool { return s.Generation(2) != nil })
			f.setClock(jump)
			f.until("probation", func(s Status) bool { return live(2)(s) && s.Generation(1) != nil })
			f.setClock(jump)
			if err := <-answer; err != nil {
				t.Error(err)
			}
			f.setClock(jump)
			f.until("the end of generation 1", alone)
			f.get("/die")
			f.setClock(jump)
			f.until("the replacement", live(3))
			f.setClock(jump)
			if err := f.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			f.setClock(jump)
			f.until("refusal", func(s Status) bool { return s.Refusing })
			if _, err := f.Start(t.Context()); err != nil {
				t.Error(err)
			}
			if m := f.until("generation 4", live(4)).Measured; m[len(m)-1].Age < 0 || m[len(m)-1].Age > time.Minute {
				t.Errorf("it is %s old", m[len(m)-1].Age)
			}
		})
	}
}

// setClock changes what the service knows as times of day.
func (f *fixture) setClock(by time.Duration) {
	f.t.Helper()
	err := f.ask(f.t.Context(), func() {
		set := func(at *time.Time) {
			if !at.IsZero() {
				*at = at.Round(0).Add(-by) // the clock is ahead of it
			}
		}
		set(&f.st.ProbationEnds)
		for i := range f.st.Generations {
			g := &f.st.Generations[i]
			set(&g.Started)
			set(&g.Ready)
			set(&g.Signalled)
			set(&g.Ended)
		}
		measured := []time.Time{f.lastLive}
		if f.current != nil {
			measured = append(measured, f.current.began)
		}
		for _, at := range measured {
			if !strings.Contains(at.String(), " m=") {
				f.t.Errorf("%s is a time of day", at)
			}
		}
	})
	if err != nil {
		f.t.Error(err)
	}
}
