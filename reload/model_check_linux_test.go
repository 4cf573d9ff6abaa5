package reload

import (
	"slices"
	"strings"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// history is what the checks remember from one quiet moment to the next.
type history struct {
	seq    uint64
	next   int
	phases map[int]state.Phase
	told   map[int]bool
	live   map[int]bool // was so once
	kinds  map[int]map[string]int
}

func newHistory() *history {
	return &history{seq: 0, next: 1, phases: map[int]state.Phase{}, told: map[int]bool{}, live: map[int]bool{}, kinds: map[int]map[string]int{}}
}

// failed: it was told that a generation, as a candidate or on trial.
func (h *history) failed(number int) bool {
	kinds := h.kinds[number]
	return kinds["generation.failed"]+kinds["canary.rejected"]+kinds["generation.crashed"]+kinds["generation.rolled-back"] > 0
}

// can is where a generation may be found next, however much has happened meanwhile.
var can = map[state.Phase][]state.Phase{
	"":              {state.Starting, state.Canary, state.Live, state.Probation, state.Draining, state.Gone, state.Failed},
	state.Starting:  {state.Starting, state.Canary, state.Live, state.Probation, state.Draining, state.Gone, state.Failed},
	state.Canary:    {state.Canary, state.Live, state.Probation, state.Draining, state.Gone},
	state.Live:      {state.Live, state.Probation, state.Draining, state.Gone},
	state.Probation: {state.Live, state.Probation, state.Draining, state.Gone},
	state.Draining:  {state.Live, state.Probation, state.Draining, state.Gone},
	state.Gone:      {state.Gone},
	state.Failed:    {state.Failed},
}

// inspect checks what must hold whenever nothing is under way but waiting. It runs in
// the service's owner, with the world locked.
func (w *world) inspect(h *history) {
	for number, g := range w.s.runs {
		g.own = w.habitsOf(number).own
	}
	w.readEvents(h)
	w.checkNumbers(h)
	w.checkPhases(h)
	w.checkRoles()
	w.checkCanary()
	w.checkWayBack(h)
	w.checkProgress()
	w.checkQueues()
	w.checkProcesses()
}

func (w *world) readEvents(h *history) {
	for _, e := range w.s.journal.last {
		if e.Seq <= h.seq {
			continue
		}
		if e.Seq != h.seq+1 {
			w.violate("event %d comes after %d", e.Seq, h.seq)
		}
		h.seq = e.Seq
		if h.kinds[e.Generation] == nil {
			h.kinds[e.Generation] = map[string]int{}
		}
		h.kinds[e.Generation][e.Kind]++
		switch e.Kind {
		case "generation.live":
			h.live[e.Generation] = true
		case "hold.refusing":
			w.dropReset()
		case "steer.failed":
			if !strings.Contains(e.Text, "it has ended") { // by chance
				w.violate("it reported: %s", e.Text)
			}
		case "settle.failed", "hold.refuse-failed", "queue.relay-failed", "generation.kill-failed", "generation.signal-failed",
			"listener.close-failed", "listener.loosen-failed", "listener.restore-failed", "listener.relisten-failed", "listener.refresh-failed":
			w.violate("it reported: %s %s", e.Kind, e.Text)
		}
	}
	for number, kinds := range h.kinds {
		for _, once := range []string{"generation.starting", "generation.live", "generation.stopping", "generation.failed", "generation.gone"} {
			if number != 0 && kinds[once] > 1 {
				w.violate("generation %d has %d times %s", number, kinds[once], once)
			}
		}
	}
}

func (w *world) checkNumbers(h *history) {
	st := &w.s.st
	if st.Next < h.next {
		w.violate("the next number was %d, now it is %d", h.next, st.Next)
	}
	h.next = st.Next
	last := 0
	for _, g := range st.Generations {
		if g.Number <= last || g.Number >= st.Next {
			w.violate("generation %d comes after %d and before %d", g.Number, last, st.Next)
		}
		last = g.Number
	}
	for number := range w.s.runs {
		if st.Generation(number) == nil {
			w.violate("generation %d runs and has no record", number)
		}
	}
}

func (w *world) checkPhases(h *history) {
	for _, g := range w.s.st.Generations {
		was := h.phases[g.Number]
		if !slices.Contains(can[was], g.Phase) {
			w.violate("generation %d was %s and is %s", g.Number, was, g.Phase)
		}
		if h.told[g.Number] && g.Phase != state.Draining && g.Phase != state.Gone && g.Phase != state.Failed {
			w.violate("generation %d was told to stop and is %s", g.Number, g.Phase)
		}
		h.phases[g.Number], h.told[g.Number] = g.Phase, !g.Signalled.IsZero()
		if g.Phase.Running() && w.s.runs[g.Number] == nil {
			w.violate("generation %d is %s and does not run", g.Number, g.Phase)
		}
	}
}

func (w *world) in(p state.Phase) (all []*state.Generation) {
	for i := range w.s.st.Generations {
		if g := &w.s.st.Generations[i]; g.Phase == p {
			all = append(all, g)
		}
	}
	return all
}

// checkRoles: at most one live, one kept, one candidate, and each of them runs.
func (w *world) checkRoles() {
	if all := append(w.in(state.Starting), w.in(state.Canary)...); len(all) > 1 {
		w.violate("%d generations are candidates", len(all))
	}
	for _, p := range []state.Phase{state.Starting, state.Canary, state.Live, state.Probation} {
		all := w.in(p)
		if len(all) > 1 {
			w.violate("%d generations are %s", len(all), p)
		}
		for _, g := range all {
			if d := w.daemons[g.Number]; p != state.Starting && (d == nil || d.ended) {
				w.violate("generation %d is %s and its process has ended", g.Number, p)
			}
		}
	}
	untold := 0
	for _, g := range w.in(state.Draining) {
		if d := w.daemons[g.Number]; g.Signalled.IsZero() && !d.ended {
			untold++
		}
	}
	if untold > w.plan.maxDraining && w.s.st.Goal != state.End {
		w.violate("%d generations drain and have not been told to stop, of at most %d", untold, w.plan.maxDraining)
	}
}

// checkCanary: it is one beside live, and what it gets is said.
func (w *world) checkCanary() {
	st, all := &w.s.st, w.in(state.Canary)
	if len(all) == 0 && (st.Share != 0 || !st.CanaryEnds.IsZero()) {
		w.violate("there is no canary, and it gets %g until %v", st.Share, st.CanaryEnds)
	}
	if len(all) > 0 && st.Live() == nil {
		w.violate("generation %d is a canary beside nobody", all[0].Number)
	}
	if end := st.CanaryEnds; !end.IsZero() && time.Since(end) > late {
		w.violate("the canary's time was over %s ago", time.Since(end))
	}
	if !st.Paused.IsZero() && st.Refusing {
		w.violate("in a pause clients are refused")
	}
}

// checkAlone is called when a generation starts: with strategy replace nobody else runs.
func (w *world) checkAlone(number int) {
	for other, d := range w.daemons {
		if w.plan.strategy == StrategyReplace && (!d.ended || d.child) {
			w.violate("generation %d starts, and processes of %d still run", number, other)
		}
	}
}

// checkWayBack: what the state promises is there.
func (w *world) checkWayBack(h *history) {
	st, kept := &w.s.st, w.in(state.Probation)
	if (len(kept) == 1) != !st.ProbationEnds.IsZero() {
		w.violate("%d generations are kept, and probation ends at %v", len(kept), st.ProbationEnds)
	}
	if len(kept) == 1 {
		if st.Live() == nil {
			w.violate("generation %d is kept, and nobody is live", kept[0].Number)
		}
		if st.Previous != kept[0].Number {
			w.violate("generation %d is kept, and %d was live before", kept[0].Number, st.Previous)
		}
	}
	if st.Goal == state.End {
		return
	}
	for _, way := range []*state.Way{st.Back, st.Fallen} {
		if way == nil {
			continue
		}
		d := w.daemons[way.Generation]
		if !h.live[way.Generation] || d == nil {
			w.violate("there is a way back to generation %d, which was never live", way.Generation)
			continue
		}
		p := w.s.programs[way.Program.Origin]
		if p == nil || p.file == nil {
			w.violate("there is a way back to generation %d, and its program was not kept", way.Generation)
		} else if _, err := p.file.Stat(); err != nil {
			w.violate("there is a way back to generation %d, and what it ran is closed: %v", way.Generation, err)
		}
	}
	if st.Back != nil && st.Back.Generation != st.Previous {
		w.violate("the way back leads to generation %d, and %d was live before", st.Back.Generation, st.Previous)
	}
}

// late is more than a helper takes to tell that its time is over.
const late = time.Second

// checkProgress: whatever is waited for has an end, and it is not over.
func (w *world) checkProgress() {
	s, now := w.s, time.Now()
	for _, g := range s.st.Generations {
		most := s.cfg.ReadyTimeout + slowStart + late
		if s.cfg.Strategy == StrategyReplace { // it waits for the end of another first
			most += settleTimeout + s.cfg.DrainTimeout + max(s.cfg.DrainTimeout, s.cfg.StopTimeout)
		}
		if g.Phase == state.Starting && now.Sub(g.Started) > most {
			w.violate("generation %d has been starting for %s", g.Number, now.Sub(g.Started))
		}
		if d := w.daemons[g.Number]; !g.Signalled.IsZero() && d != nil && !d.ended && now.Sub(g.Signalled) > max(s.cfg.DrainTimeout, s.cfg.StopTimeout)+late {
			w.violate("generation %d was told to stop %s ago and still runs", g.Number, now.Sub(g.Signalled))
		}
	}
	for _, g := range w.in(state.Draining) {
		if d := w.daemons[g.Number]; g.Signalled.IsZero() && !g.Settled.IsZero() && !d.ended && now.Sub(g.Settled) > s.cfg.DrainTimeout+late {
			w.violate("generation %d has settled %s ago and was not told to stop", g.Number, now.Sub(g.Settled))
		}
	}
	if end := s.st.ProbationEnds; !end.IsZero() && now.Sub(end) > late {
		w.violate("probation ended %s ago and is not decided", now.Sub(end))
	}
	if s.st.Goal != state.Run || s.st.Live() != nil {
		return
	}
	if s.current == nil && s.restart == nil {
		w.violate("nobody is live, and nobody will be")
	}
	if over := now.Sub(s.lastLive) - s.cfg.HoldTimeout; s.cfg.HoldTimeout > 0 && over > 0 && !s.paused() && s.current == nil && !s.settling() && w.allHeld() && !s.st.Refusing {
		w.violate("nobody has been live for %s more than clients are held, and they still are", over)
	}
	if s.st.Refusing && now.Sub(s.lastLive) < s.cfg.HoldTimeout {
		w.violate("clients are refused %s too early", s.cfg.HoldTimeout-now.Sub(s.lastLive))
	}
}

func (w *world) allHeld() bool {
	return !slices.ContainsFunc(w.s.eps, func(e *endpoint) bool { return e.reserve == nil })
}

// checkQueues: whoever waits does so in a listener that the service still has.
func (w *world) checkQueues() {
	has := map[uint64]int{}
	for _, l := range w.listeners() {
		has[l.Inode()], _, _ = l.Queue()
	}
	for inode, queue := range w.queues {
		if n, ok := has[inode]; len(queue) > 0 && w.s.st.Goal != state.End && (!ok || n != len(queue)) {
			w.violate("%d clients waited in listener %d, which is there: %v, with %d", len(queue), inode, ok, n)
		}
	}
	if n := w.s.st.Relayed + w.s.st.Resumed; n != w.relayed {
		w.violate("%d clients were relayed, the state counts %d", w.relayed, n)
	}
}

// checkProcesses: none runs that the service does not know of.
func (w *world) checkProcesses() {
	for number, d := range w.daemons {
		if (!d.ended || d.child) && w.s.runs[number] == nil {
			w.violate("generation %d is none of the service's and its processes run", number)
		}
	}
}

// checkStop is called at the stop signal to a generation's main process.
func (w *world) checkStop(d *daemon) {
	if d.told > 1 {
		w.violate("generation %d got the stop signal %d times", d.number, d.told)
	}
	r, g := w.s.st.Generation(d.number), w.s.runs[d.number]
	if r == nil || r.Phase != state.Draining {
		w.violate("generation %d got the stop signal and does not drain: %+v", d.number, r)
	}
	if w.s.st.Goal == state.End || g != nil && g.overdue {
		return
	}
	if !w.settled[d.number] {
		w.violate("generation %d got the stop signal before it had settled", d.number)
		return
	}
	w.checkFinished(d, r, g)
}

// checkFinished: what d has open may be cut off. One that has just ended has nothing any more.
func (w *world) checkFinished(d *daemon, r *state.Generation, g *generation) {
	if d.ended {
		return
	}
	busy, waited := len(d.conns), time.Since(r.Settled)
	if w.s.cfg.Drain == DrainAuto {
		busy -= d.idle()
	}
	if g != nil && w.s.finishesFirst(g) && busy > 0 && waited < w.s.cfg.DrainTimeout {
		w.violate("generation %d got the stop signal %s after it had settled, with %d connections", d.number, waited, busy)
	}
	if waited > lookMost && !w.s.finishesFirst(g) {
		w.violate("generation %d got the stop signal %s after it had settled", d.number, waited)
	}
}
