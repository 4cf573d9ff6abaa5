package main

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/state"
)

// script is a service that does as it is told, and what its manager hears.
type script struct {
	st     state.Service
	events []reload.Event
	follow chan reload.Event
	ended  bool
	stuck  atomic.Bool
	mu     sync.Mutex
	said   []string
	deaf   error
}

func (s *script) Events(context.Context, bool) ([]reload.Event, <-chan reload.Event, error) {
	if s.ended {
		return nil, nil, reload.ErrEnded
	}
	s.follow = make(chan reload.Event, 1)
	return s.events, s.follow, nil
}

func (s *script) State(ctx context.Context) (state.Service, error) {
	if s.stuck.Load() {
		<-ctx.Done()
		return state.Service{}, context.Cause(ctx)
	}
	return s.st, nil
}

func (s *script) Say(assignments ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, strings.Join(assignments, " "))
	return s.deaf
}

func (s *script) Close() { s.Say("closed") }

// happens tells of one more event, and waits until it has been dealt with.
func (s *script) happens(kind string, fields map[string]any) {
	e := reload.Event{Time: time.Now(), Seq: uint64(len(s.events) + 1), Kind: kind, Fields: fields}
	s.events = append(s.events, e)
	s.follow <- e
	synctest.Wait()
}

func (s *script) end() {
	s.ended = true
	close(s.follow)
	synctest.Wait()
}

// managed runs a manager of s.
func managed(t *testing.T, s *script, watchdog time.Duration) {
	m := &manager{svc: s, to: s, log: zerolog.Nop(), watchdog: watchdog, startLimit: time.Minute, stopLimit: 2 * time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); m.run(t.Context()) }()
	synctest.Wait()
	t.Cleanup(func() { <-done })
}

// heard is what was said since, with one word for all times.
func (s *script) heard() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := regexp.MustCompile(`MONOTONIC_USEC=[1-9]\d*`).ReplaceAllString(strings.Join(s.said, "\n"), "MONOTONIC_USEC=now")
	s.said = nil
	return all
}

func (s *script) expect(t *testing.T, want string) {
	t.Helper()
	if diff := cmp.Diff(want, s.heard()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func reason(r string) map[string]any { return map[string]any{"reason": r} }

// reloadBegins and startBegins are what is said then.
const (
	startBegins  = "EXTEND_TIMEOUT_USEC=60000000"
	reloadBegins = "RELOADING=1 MONOTONIC_USEC=now EXTEND_TIMEOUT_USEC=60000000"
)

func TestManagerHearsWhatItMust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		s.st.Generations = []state.Generation{{Number: 1, Phase: state.Starting}}
		managed(t, s, 0)
		s.happens("generation.starting", reason("start"))
		s.expect(t, startBegins+" STATUS=no generation live, clients wait, generation 1 starting")
		s.happens("generation.failed", nil) // --restart always: it goes on
		s.happens("restart.scheduled", nil)
		s.expect(t, startBegins)
		s.st.Generations[0].Phase = state.Live
		s.happens("generation.live", nil)
		s.expect(t, "READY=1 STATUS=generation 1 live")

		for _, outcome := range []string{"generation.live", "generation.failed"} {
			s.happens("generation.starting", reason("SIGHUP"))
			s.expect(t, reloadBegins)
			s.happens("generation.crashed", nil)
			s.happens("reload.refused", nil)
			s.expect(t, "")
			s.happens(outcome, nil)
			s.expect(t, "READY=1")
		}
		s.happens("reload.refused", nil)
		s.expect(t, "RELOADING=1 MONOTONIC_USEC=now READY=1")

		// A canary for a time is a reload that goes on; one that somebody is to promote
		// is none any more.
		for _, end := range []string{"canary.rejected", "generation.live"} {
			s.happens("generation.starting", reason("SIGHUP"))
			s.happens("canary.begun", map[string]any{"for_ms": int64(5000)})
			s.expect(t, reloadBegins+"\nEXTEND_TIMEOUT_USEC=65000000")
			s.happens(end, nil)
			s.expect(t, "READY=1")
		}
		s.happens("generation.starting", reason("SIGHUP"))
		s.happens("canary.begun", map[string]any{"for_ms": int64(0)})
		s.happens("canary.rejected", nil)
		s.expect(t, reloadBegins+"\nREADY=1")

		// A replacement after a crash is no reload.
		s.happens("generation.starting", reason("restart"))
		s.happens("generation.failed", nil)
		s.happens("restart.scheduled", nil)
		s.happens("generation.live", nil)
		s.expect(t, "")

		s.happens("generation.starting", reason("reload by uid 0"))
		s.expect(t, reloadBegins)
		s.happens("service.ending", map[string]any{"drains": true})
		s.happens("generation.failed", nil) // given up; nothing but STOPPING counts any more
		s.expect(t, "STOPPING=1 EXTEND_TIMEOUT_USEC=120000000")
		s.end()
		s.expect(t, "closed")
	})
}

func TestManagerIsToldOfAnEndAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		managed(t, s, 0)
		s.happens("service.ending", map[string]any{"drains": false})
		s.end()
		s.expect(t, "STOPPING=1 STATUS=no generation live, clients wait\nclosed")
	})
}

// The events are read again from the start when too many came at once.
func TestManagerThatFellBehindHearsAllOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		managed(t, s, 0)
		s.happens("generation.live", nil)
		s.happens("generation.starting", reason("x"))
		s.heard()
		s.events = append(s.events, reload.Event{Seq: 3, Time: time.Now(), Kind: "generation.live"})
		close(s.follow)
		synctest.Wait()
		s.expect(t, "READY=1")
		s.end()
	})
}

// The moment that counts is the event's, not that at which it is told.
func TestMonotonicIsOfTheEvent(t *testing.T) {
	early, late := monotonic(time.Now().Add(-time.Hour)), monotonic(time.Now())
	var a, b int64
	for at, text := range map[*int64]string{&a: early, &b: late} {
		value, _ := strings.CutPrefix(text, "MONOTONIC_USEC=")
		d, err := time.ParseDuration(value + "us")
		if err != nil {
			t.Fatal(err)
		}
		*at = int64(d)
	}
	if d := time.Duration(b - a); d < time.Hour || d > time.Hour+time.Minute {
		t.Errorf("%s and %s are %s apart", early, late, d)
	}
}

func TestWatchdogIsToldOnlyIfTheOwnerAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		managed(t, s, 2*time.Second)
		pings := func() int { return strings.Count(s.heard(), "WATCHDOG=1") }
		pass := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		pass(10*time.Second + time.Millisecond)
		if n := pings(); n != 10 {
			t.Errorf("%d signs of life in 10 s", n)
		}
		s.stuck.Store(true)
		pass(10 * time.Second)
		if n := pings(); n != 0 {
			t.Errorf("%d signs of life from one that is stuck", n)
		}
		s.stuck.Store(false)
		pass(10 * time.Second)
		if n := pings(); n < 9 {
			t.Errorf("%d signs of life afterwards", n)
		}
		s.end()
	})
}

// Who does not listen is told again each time, and the log once.
func TestManagerThatDoesNotListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := &script{deaf: errors.New("nobody is there")}
		ctx, cancel := context.WithCancel(t.Context())
		m := &manager{svc: s, to: s, log: zerolog.New(&log)}
		go m.run(ctx)
		synctest.Wait()
		s.happens("generation.live", nil)
		s.happens("reload.refused", nil)
		if got := strings.Count(log.String(), "manager.failed"); got != 1 || len(s.said) != 2 {
			t.Errorf("said %q, logged %s", s.said, &log)
		}
		cancel() // the holder ends, and waits no longer
		s.happens("reload.refused", nil)
		if len(s.said) != 2 {
			t.Errorf("said %q", s.said)
		}
		s.end()
	})
}

func TestStatusLine(t *testing.T) {
	phases := func(goal state.Goal, refusing bool, all ...state.Phase) state.Service {
		st := state.Service{Goal: goal, Refusing: refusing}
		for i, p := range all {
			st.Generations = append(st.Generations, state.Generation{Number: i + 1, Phase: p})
		}
		return st
	}
	paused := phases(state.Run, false, state.Draining, state.Live, state.Canary)
	paused.Paused = time.Now()
	for want, st := range map[string]state.Service{
		"generation 2 live, generation 3 canary, paused: clients wait, 1 draining": paused,
		"generation 3 live, 2 draining":                                            phases(state.Run, false, state.Draining, state.Draining, state.Live),
		"generation 3 live, generation 2 probation":                                phases(state.Run, false, state.Gone, state.Probation, state.Live),
		"generation 2 live, generation 3 starting, 1 draining":                     phases(state.Run, false, state.Draining, state.Live, state.Starting),
		"no generation live, clients wait":                                         phases(state.Run, false, state.Failed),
		"no generation live, refusing clients, generation 1 starting":              phases(state.Run, true, state.Starting),
		"stopped, 1 draining":                                                      phases(state.Stop, false, state.Draining),
		"ending, 1 draining":                                                       phases(state.End, false, state.Draining),
	} {
		if got := statusLine(st); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
