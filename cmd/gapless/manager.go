package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/notify"
	"github.com/gapless-dev/gapless/reload/state"
)

// manager tells whoever started the holder how it is (sd_notify(3)): that the first
// generation is live, that a reload runs and has been decided, that it ends, in a line
// how it is, and that it is alive. It exists only where somebody wants to know. One
// goroutine does all of it, and waits for the manager a second at most.
type manager struct {
	svc served
	to  told
	log zerolog.Logger
	// watchdog is how long the manager waits for a sign of life; 0 if it does not.
	watchdog time.Duration
	// startLimit and stopLimit are the longest that these may take by themselves.
	startLimit, stopLimit time.Duration

	heard     uint64 // the last event
	ready     bool   // some generation was live
	reloading bool
	stopping  bool
	status    string // as it was told last
	failed    bool   // it could not be told
}

// served is the service, as far as its manager is concerned.
type served interface {
	Events(ctx context.Context, follow bool) ([]reload.Event, <-chan reload.Event, error)
	State(ctx context.Context) (state.Service, error)
}

// told is the [notify.Manager].
type told interface {
	Say(assignments ...string) error
	Close()
}

// newManager is nil if nobody wants to know.
func newManager(svc served, log zerolog.Logger) *manager {
	to := notify.FindManager(os.Getenv)
	if to == nil {
		return nil
	}
	watchdog, err := sd.SdWatchdogEnabled(false) // 0 for another's WATCHDOG_PID
	if err != nil {
		log.Warn().Err(err).Str("event", "manager.failed").Msg("can't read the watchdog's time")
	}
	return &manager{svc: svc, to: to, watchdog: watchdog, log: log}
}

// run goes on until the service has ended, and tells of that too.
func (m *manager) run(ctx context.Context) {
	defer m.to.Close()
	var tick <-chan time.Time
	if m.watchdog > 0 {
		ticker := time.NewTicker(max(m.watchdog/2, time.Millisecond))
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		last, more, err := m.svc.Events(ctx, true)
		if err != nil {
			return
		}
		for _, e := range last {
			m.hear(ctx, e)
		}
		m.follow(ctx, more, tick) // until it ends, or we have fallen behind
	}
}

func (m *manager) follow(ctx context.Context, more <-chan reload.Event, tick <-chan time.Time) {
	for {
		select {
		case e, open := <-more:
			if !open {
				return
			}
			m.hear(ctx, e)
		case <-tick:
			m.live(ctx)
		}
	}
}

// live says that the holder works, if it does: that its owner answers, not just that
// this goroutine runs.
func (m *manager) live(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, m.watchdog/4)
	defer cancel()
	if _, err := m.svc.State(ctx); err == nil || errors.Is(err, reload.ErrEnded) {
		m.say(ctx, sd.SdNotifyWatchdog)
		return
	}
	m.log.Error().Str("event", "manager.stuck").Msg("the holder does not answer: the watchdog is not told that it lives")
}

// hear takes each event once: they come again to who has fallen behind.
func (m *manager) hear(ctx context.Context, e reload.Event) {
	if e.Seq <= m.heard {
		return
	}
	m.heard = e.Seq
	said := m.answer(e)
	if st, err := m.svc.State(ctx); err == nil && statusLine(st) != m.status {
		m.status = statusLine(st)
		said = append(said, "STATUS="+m.status)
	}
	if len(said) > 0 {
		m.say(ctx, said...)
	}
}

// answer is what an event means to a manager.
func (m *manager) answer(e reload.Event) []string {
	switch {
	case m.stopping: // which is final
	case e.Kind == "service.ending":
		m.stopping = true
		if e.Fields["drains"] == true {
			return []string{sd.SdNotifyStopping, extend(m.stopLimit)}
		}
		return []string{sd.SdNotifyStopping}
	case e.Kind == "generation.starting":
		return m.begins(e)
	case e.Kind == "restart.scheduled" && !m.ready:
		return []string{extend(m.startLimit)}
	case e.Kind == "canary.begun" && m.reloading && canaryTime(e) > 0:
		return []string{extend(canaryTime(e) + m.startLimit)}
	case e.Kind == "generation.live" && !m.ready, m.reloading && decides(e.Kind):
		m.ready, m.reloading = true, false
		return []string{sd.SdNotifyReady}
	case e.Kind == "reload.refused" && m.ready && !m.reloading:
		// Who asked by signal waits for an answer all the same.
		return []string{sd.SdNotifyReloading, monotonic(e.Time), sd.SdNotifyReady}
	}
	return nil
}

// canaryTime is 0 for one that waits to be promoted.
func canaryTime(e reload.Event) time.Duration {
	ms, _ := e.Fields["for_ms"].(int64)
	return time.Duration(ms) * time.Millisecond
}

// decides: the reload is over. A canary that is left here began for as long as it takes
// somebody to promote it.
func decides(kind string) bool {
	switch kind {
	case "generation.live", "generation.failed", "canary.rejected", "canary.begun":
		return true
	}
	return false
}

func (m *manager) begins(e reload.Event) []string {
	reason := e.Fields["reason"]
	switch {
	case !m.ready:
		return []string{extend(m.startLimit)}
	case reason == "start" || reason == "restart": // nobody has asked for another version
		return nil
	}
	m.reloading = true
	return []string{sd.SdNotifyReloading, monotonic(e.Time), extend(m.startLimit)}
}

// extend: from now on, it may take so long.
func extend(d time.Duration) string { return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()) }

// monotonic is the time by the clock that the manager reads too. With Type=notify-reload
// it tells a reload that was asked for from one that ran already.
func monotonic(t time.Time) string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return "MONOTONIC_USEC=0"
	}
	return fmt.Sprintf("MONOTONIC_USEC=%d", (now.Nano()-time.Since(t).Nanoseconds())/1000)
}

// say logs the first of several failures in a row. At the end it does not wait again
// for a manager that does not read.
func (m *manager) say(ctx context.Context, assignments ...string) {
	if m.failed && ctx.Err() != nil {
		return
	}
	err := m.to.Say(assignments...)
	if err != nil && !m.failed {
		m.log.Warn().Err(err).Str("event", "manager.failed").Msg("whoever started gapless does not hear how it is")
	}
	m.failed = err != nil
}

// statusLine is the line that systemctl status shows.
func statusLine(st state.Service) string {
	var line string
	draining := 0
	for _, g := range st.Generations {
		part := fmt.Sprintf("generation %d %s", g.Number, g.Phase)
		switch {
		case g.Phase == state.Draining:
			draining++
		case g.Phase == state.Live:
			line = joined(part, line)
		case g.Phase.Running():
			line = joined(line, part)
		}
	}
	if st.Live() == nil {
		line = joined(nobodyLive(st), line)
	}
	if !st.Paused.IsZero() {
		line = joined(line, "paused: clients wait")
	}
	if draining > 0 {
		line = joined(line, fmt.Sprintf("%d draining", draining))
	}
	return line
}

func nobodyLive(st state.Service) string {
	switch {
	case st.Goal == state.Stop:
		return "stopped"
	case st.Goal == state.End:
		return "ending"
	case st.Refusing:
		return "no generation live, refusing clients"
	}
	return "no generation live, clients wait"
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}
