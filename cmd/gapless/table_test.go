package main

import (
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/state"
)

// However the clock was set since, a generation is as old as it is.
func TestAgeAfterAClockJump(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour, -50 * 365 * 24 * time.Hour} {
		s := reload.Status{Measured: []reload.MeasuredSockets{{Generation: 1, Age: 65 * time.Second}}}
		s.Generations = []state.Generation{{Number: 1, Phase: state.Live, PID: 1, Started: time.Now().Add(jump)}}
		if got := rowsOf(s)[0].up; got != "1m05s" {
			t.Errorf("after a jump of %s it is up %s", jump, got)
		}
	}
}
