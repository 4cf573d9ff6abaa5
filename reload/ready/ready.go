// Package ready finds out when a generation can serve. Ready is said or shown,
// never guessed: by the daemon itself (package notify hears it), by a connection
// that it has accepted, by an answer to a probe. "Alive after a while" is there for
// those who ask for it.
//
// Probes go through the public address to the candidate alone ([handoff.Dial]), so
// what is checked is what clients will get. They own their connections and end with
// their context; nothing is left behind.
package ready

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Mode is how a generation shows that it is ready.
type Mode string

// Auto is: ready when it has accepted a connection on each of its listeners and, if
// its service ever said READY=1, has said so.
const (
	Auto   Mode = "auto"
	Notify Mode = "notify"
	Listen Mode = "listen"
	Accept Mode = "accept"
	Probe  Mode = "probe"
	Delay  Mode = "delay"
)

// Options of readiness; the zero value is Auto.
type Options struct {
	Mode  Mode
	Delay time.Duration // for Delay
	Check Check         // for Probe

	Interval time.Duration // between two checks, 100 ms by default
	Timeout  time.Duration // of one check, 2 s by default
	Rise     int           // checks that must succeed in a row, 1 by default
}

// ParseMode reads the value of --ready.
func ParseMode(text string) (Options, error) {
	if d, ok := strings.CutPrefix(text, "delay:"); ok {
		delay, err := time.ParseDuration(d)
		if err != nil || delay < 0 {
			return Options{}, fmt.Errorf("bad --ready %q: want a duration with a unit, as delay:2s", text)
		}
		return Options{Mode: Delay, Delay: delay}, nil
	}
	switch m := Mode(text); m {
	case Auto, Notify, Listen, Accept, Probe:
		return Options{Mode: m}, nil
	}
	return Options{}, fmt.Errorf("bad --ready %q: want auto, notify, listen, accept, probe or delay:2s", text)
}

// ErrRefused is wrapped when the last check was answered, but not as it should.
var ErrRefused = errors.New("it failed its probe")

// Wait repeats the check until it succeeds Rise times in a row. When ctx ends
// before, the error says what the last check ran into that had its time.
func (o Options) Wait(ctx context.Context, t Target) error {
	rise := 0
	var last error
	for {
		err := o.Once(ctx, t)
		if err == nil {
			if rise++; rise >= max(1, o.Rise) {
				return nil
			}
		} else {
			rise = 0
		}
		if last == nil || ctx.Err() == nil || errors.Is(err, ErrRefused) {
			last = err // one that was cut off says less than those before it
		}
		if waitErr := sleep(ctx, o.Every()); waitErr != nil {
			return errors.Join(waitErr, last)
		}
	}
}

// Every is the time between two checks.
func (o Options) Every() time.Duration { return orDefault(o.Interval, 100*time.Millisecond) }

// Once makes the check, within its timeout.
func (o Options) Once(ctx context.Context, t Target) error {
	ctx, cancel := context.WithTimeout(ctx, orDefault(o.Timeout, 2*time.Second))
	defer cancel()
	return o.Check.try(ctx, t)
}

func orDefault(d, other time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return other
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
