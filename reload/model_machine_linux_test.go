package reload

import (
	"slices"
	"time"

	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/state"
)

// machine is the service as a person would tell it: who is what, and what becomes of
// that within a moment. It knows what the daemons will do, and nothing of how the
// service goes about it. Where a timer of the service's may run out meanwhile, or two
// things happen at once, it is blind, and looks afterwards.
type machine struct {
	picture
	blind bool
	// Of the candidate: it is on a way back; it must say READY=1 as one before it did.
	// Nobody knows the latter of one that started while nobody looked.
	isBack, mustSay, unsure bool
	// tries: it is to be a canary first, and so is the next.
	tries, nextTries bool

	notifies bool
	everLive bool
	pinned   int // whose program it is that a start runs, after a way back
}

// picture is what is compared.
type picture struct {
	goal                  state.Goal
	live, kept, candidate int
	canary                int // it is the candidate no more
	previous              int
	waits                 bool // a reload, for what becomes of the candidate
	onlyIf                bool // some that is live then
	next                  int
}

func (w *world) picture() picture {
	p := picture{goal: w.s.st.Goal, next: w.s.st.Next, previous: w.s.st.Previous}
	if w.s.next != nil {
		p.waits = true
		p.onlyIf = slices.ContainsFunc(w.s.next.waiters, func(w waiter) bool { return w.ifGeneration != 0 })
	}
	for at, phase := range map[*int]state.Phase{&p.live: state.Live, &p.kept: state.Probation, &p.candidate: state.Starting, &p.canary: state.Canary} {
		if all := w.in(phase); len(all) > 0 {
			*at = all[0].Number
		}
	}
	return p
}

// compare what was foretold with what is. With the world locked, in the owner.
func (m *machine) compare(w *world) {
	now := w.picture()
	if !m.blind && m.goal != "" && m.picture != now {
		w.violate("it was to be %+v, and is %+v", m.picture, now)
	}
	if m.blind || now.candidate != m.candidate {
		m.mustSay, m.unsure = w.s.st.Notifies, w.s.st.Notifies
	}
	m.picture, m.blind = now, w.timerDue()
	m.isBack, m.tries, m.nextTries = false, false, false
	if r := w.s.current; r != nil {
		m.isBack, m.tries = r.back != nil, r.canaryFor(w.s.cfg) != nil
	}
	if r := w.s.next; r != nil {
		m.nextTries = r.canaryFor(w.s.cfg) != nil
	}
	m.notifies, m.everLive, m.pinned = w.s.st.Notifies, w.s.everLive, w.s.st.Pinned
}

// timerDue tells whether time alone may change the picture within the next step.
func (w *world) timerDue() bool {
	st, soon := &w.s.st, time.Now().Add(2*moment)
	if st.Goal == state.Run && st.Live() == nil && w.s.current == nil {
		return true // it starts again soon
	}
	if end := st.ProbationEnds; !end.IsZero() && end.Before(soon) {
		return true
	}
	if end := st.CanaryEnds; !end.IsZero() && end.Before(soon) {
		return true
	}
	if w.plan.strategy == StrategyReplace && (len(w.in(state.Starting)) > 0 || st.Live() == nil) {
		return true // one waits for the end of another
	}
	for _, d := range w.daemons {
		if d.unwell && !d.ended {
			return true // who knows when that is found
		}
	}
	for _, g := range w.in(state.Starting) {
		if g.Started.Add(w.s.cfg.ReadyTimeout).Before(soon) || time.Since(g.Started) < moment {
			return true
		}
	}
	return false
}

// reload is asked for n times at once.
func (m *machine) reload(w *world, o ReloadOptions, n int) {
	switch {
	case m.goal != state.Run, o.IfGeneration != 0 && o.IfGeneration != m.live:
	case o.Canary != nil && (w.plan.shared || w.plan.strategy == StrategyReplace):
	case o.IfGeneration != 0 && m.busy():
		m.blind = true // its condition is looked at again later
	case m.busy():
		m.waits, m.nextTries = true, m.nextTries || o.Canary != nil || w.plan.canary != nil
		if o.Supersede && m.canary != 0 {
			m.canary = 0
			m.proceed(w)
		} else if o.Supersede {
			m.fails(w)
		}
	default:
		before := m.next
		m.waits, m.nextTries = n > 1, w.plan.canary != nil
		m.tries = o.Canary != nil || w.plan.canary != nil
		m.starts(w, false, nil)
		m.blind = m.blind || n > 2 && m.next != before+1 // where the last comes, who can tell
	}
}

func (m *machine) start(w *world) {
	if m.goal == state.End || m.live != 0 || m.candidate != 0 {
		return
	}
	m.goal, m.tries = state.Run, false
	m.starts(w, false, w.daemons[m.pinned]) // no reload: it runs what ran
}

func (m *machine) stop() {
	if m.goal == state.Run {
		m.picture = picture{goal: state.Stop, previous: m.previous, next: m.next}
	}
}

func (m *machine) rollback(w *world) {
	before := w.daemons[m.previous]
	switch {
	case m.goal == state.End:
	case m.canary != 0:
		m.canary = 0
		m.proceed(w)
	case m.candidate != 0, m.live == 0:
	case m.kept != 0:
		m.live, m.previous, m.kept = m.kept, m.live, 0
	case before == nil: // there was none
	case !before.ended && before.told == 0 && !before.condemned:
		m.live, m.previous = m.previous, m.live
	default:
		m.tries = false
		m.starts(w, true, before)
	}
}

// starts the next generation, on a way back or not. It runs what is at the path, or
// what another did, if it is pinned to that.
func (m *machine) starts(w *world, back bool, pin *daemon) {
	number, h := m.next, w.habitsOf(m.next)
	m.next++
	m.blind = m.blind || w.plan.strategy == StrategyReplace
	m.candidate, m.isBack, m.mustSay, m.unsure = number, back, m.notifies, false
	from := w.file
	if pin != nil {
		from = pin.file
	}
	there := from != nil && !from.overwritten && (from == w.file || pin != nil && !from.script)
	switch {
	case !there, h.start == unprepared, h.start == notFound, h.start == forkFails:
		m.fails(w)
	case h.quick, w.plan.mode == ready.Delay:
		m.becomes(w, h)
	}
}

// becomes: the candidate has shown all that it ever will.
func (m *machine) becomes(w *world, h habits) {
	says := h.notifies && (h.quick || w.plan.mode != ready.Delay)
	// The first that says so may be found to accept before it is heard, and the next then
	// starts before anybody knows what it must say.
	m.blind = m.blind || says && !m.notifies && m.waits && w.plan.mode == ready.Auto
	m.notifies = m.notifies || says
	switch w.plan.mode {
	case ready.Notify:
		if !says {
			return
		}
	case ready.Auto:
		m.blind = m.blind || m.unsure
		if m.mustSay && !says {
			return
		}
	}
	if m.tries && m.live != 0 && !m.isBack {
		m.canary, m.candidate = m.candidate, 0
		return
	}
	m.goesLive(w, m.candidate)
}

func (m *machine) goesLive(w *world, number int) {
	old := m.live
	m.live, m.candidate, m.canary, m.kept, m.everLive = number, 0, 0, 0, true
	if old != 0 {
		m.previous = old
		if w.plan.probation > 0 && !m.isBack {
			m.kept = old
		}
	} else {
		m.blind = true // whom a way back leads to, who can tell
	}
	m.proceed(w)
}

func (m *machine) proceed(w *world) {
	if m.waits && m.goal == state.Run {
		m.blind = m.blind || m.onlyIf
		m.waits, m.onlyIf, m.tries = false, false, m.nextTries
		m.starts(w, false, nil)
	}
}

// fails: the candidate does.
func (m *machine) fails(w *world) {
	m.candidate = 0
	m.proceed(w)
	if m.candidate != 0 || m.live != 0 || m.goal != state.Run {
		return
	}
	if !m.everLive && w.plan.restart != RestartAlways || w.plan.restart == RestartNo {
		m.goal = state.End
	}
}

// happen is what a daemon does by itself.
func (m *machine) happen(w *world, one step, d *daemon) {
	switch one.kind {
	case doReady:
		m.becomes(w, d.habits)
	case doCandidateExits:
		m.fails(w)
	case doLiveCrashes:
		m.crash(w, one.arg%3 != 0)
	case doCanaryExits:
		m.canary = 0
		m.proceed(w)
	case doKeptCrashes:
		m.kept = 0
	case doShutListener:
		m.blind = m.blind || m.busy() || w.plan.shared
	}
}

func (m *machine) crash(w *world, failed bool) {
	switch {
	case m.kept != 0:
		m.live, m.previous, m.kept = m.kept, m.live, 0
	case m.canary != 0:
		m.live = 0
		m.goesLive(w, m.canary)
	case m.candidate != 0:
		m.live = 0
	case w.plan.restart == RestartAlways, w.plan.restart == RestartOnFailure && failed:
		m.live = 0
	default:
		m.live, m.goal = 0, state.End
	}
}

func (m *machine) busy() bool { return m.candidate != 0 || m.canary != 0 }

// share is asked for.
func (m *machine) share(w *world) {
	if m.goal != state.End && !w.plan.shared && w.plan.strategy != StrategyReplace && m.candidate != 0 && m.live != 0 && !m.isBack {
		m.tries = true
	}
}

func (m *machine) promote(w *world) {
	if m.goal != state.End && m.canary != 0 {
		m.goesLive(w, m.canary)
	}
}
