package reload

import (
	"fmt"
	"os"
	"time"

	"pgregory.net/rapid"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/ready"
)

// plan is one sequence of the model check: a service, the habits of its daemons, and
// what happens to it. It is drawn outside the bubble, where rapid may panic.
type plan struct {
	endpoints   int
	shared      bool
	mode        ready.Mode
	probation   time.Duration
	strategy    Strategy
	canary      *CanaryOptions
	hold        time.Duration
	restart     Restart
	maxDraining int
	drain       Drain
	guard       time.Duration // until it is heard
	habits      []habits
	steps       []step
	end         int
}

// step is one event; what it is about is found in arg.
type step struct {
	kind  kind
	arg   int
	quick bool // the next comes before this one's consequences
}

type kind int

const (
	doReload kind = iota
	doSupersede
	doReloadIf
	doTrigger
	doRollback
	doStop
	doStart
	doReady
	doCandidateExits
	doLiveCrashes
	doKeptCrashes
	doDrainingEnds
	doChildEnds
	doConnect
	doServe
	doFinish
	doShutListener
	doDeploy
	doSlowSettling
	doCanaryReload
	doSetShare
	doPromote
	doCanaryExits
	doUnwell
	doPause
	doResume
	doWait
)

// weights say how often each comes.
var weights = map[kind]int{
	doReload: 10, doSupersede: 4, doReloadIf: 3, doTrigger: 3, doRollback: 8, doStop: 3, doStart: 4, doReady: 10, doCandidateExits: 3,
	doLiveCrashes: 4, doKeptCrashes: 2, doDrainingEnds: 3, doChildEnds: 2, doConnect: 5, doServe: 3, doFinish: 2, doShutListener: 3, doDeploy: 3,
	doSlowSettling: 4, doCanaryReload: 6, doSetShare: 3, doPromote: 3, doCanaryExits: 2, doUnwell: 2, doPause: 4, doResume: 4, doWait: 10,
}

var kinds = rapid.SampledFrom(weighted())

func weighted() (all []kind) {
	for k := doReload; k <= doWait; k++ {
		for range weights[k] {
			all = append(all, k)
		}
	}
	return all
}

var steps = rapid.Custom(func(t *rapid.T) step {
	bits := rapid.IntRange(0, 1<<11-1).Draw(t, "arg")
	return step{kind: kinds.Draw(t, "kind"), arg: bits >> 3, quick: bits&7 > 4}
})

// Most daemons are of the usual kind, so that there are generations to speak of.
var someHabits = rapid.Custom(func(t *rapid.T) habits {
	bits := rapid.Uint64().Draw(t, "habits")
	take := func(n uint64) int {
		v := bits % n
		bits /= n
		return int(v)
	}
	h := habits{quick: take(3) > 0, notifies: take(4) == 0, shuts: take(3) == 0, lazy: take(4) == 0, own: take(3) == 0, keeps: take(4) == 0}
	if take(5) == 0 {
		h.start = startHabit(take(uint64(startHabits)))
	}
	if take(3) == 0 {
		h.stop = stopHabit(take(uint64(stopHabits)))
	}
	if take(6) == 0 {
		h.child = childHabit(take(uint64(childHabits)))
	}
	return h
})

// shares of canaries: of none, some or all new connections, for a time or until somebody decides.
var shares = []*CanaryOptions{{Share: 0.5, For: 5 * time.Second}, {Share: 0.5}, {Share: 0, For: 2 * time.Second}, {Share: 1, For: 5 * time.Second}, {Share: 0.1}}

var plans = rapid.Custom(func(t *rapid.T) plan {
	p := plan{
		endpoints:   rapid.IntRange(1, 2).Draw(t, "endpoints"),
		shared:      rapid.IntRange(0, 9).Draw(t, "shared") == 9,
		mode:        rapid.SampledFrom([]ready.Mode{ready.Auto, ready.Auto, ready.Notify, ready.Accept, ready.Probe, ready.Delay}).Draw(t, "mode"),
		probation:   rapid.SampledFrom([]time.Duration{0, 5 * time.Second}).Draw(t, "probation"),
		hold:        rapid.SampledFrom([]time.Duration{2 * time.Second, 60 * time.Second, -1}).Draw(t, "hold"),
		restart:     rapid.SampledFrom([]Restart{RestartAlways, RestartOnFailure, RestartNo}).Draw(t, "restart"),
		guard:       rapid.SampledFrom([]time.Duration{0, 3 * time.Millisecond}).Draw(t, "guard"),
		drain:       rapid.SampledFrom([]Drain{DrainAuto, DrainSignal, DrainConnections}).Draw(t, "drain"),
		maxDraining: rapid.IntRange(1, 3).Draw(t, "draining"),
		habits:      rapid.SliceOfN(someHabits, 1, 12).Draw(t, "habits"),
		steps:       rapid.SliceOfN(steps, 1, 40).Draw(t, "steps"),
		end:         rapid.IntRange(0, 3).Draw(t, "end"),
	}
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		p.strategy, p.probation = StrategyReplace, 0
	case 1:
		p.canary = shares[rapid.IntRange(0, len(shares)-1).Draw(t, "canary")]
	}
	if p.shared {
		p.canary = nil
	}
	return p
})

// ownAddress is this process's alone: a client of another test's, which tries a port
// that was free a moment ago, is not to be met.
func ownAddress() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 1+pid>>16&127, pid>>8&255, 1+pid&127)
}

func (p plan) config(w *world) Config {
	cfg := Config{
		Name: "web", Command: []string{"daemon"}, Dir: w.dir, Shared: p.shared, Ready: ready.Options{Mode: p.mode, Delay: 10 * time.Millisecond},
		Strategy: p.strategy, Canary: p.canary, Probation: p.probation, HoldTimeout: p.hold, Restart: p.restart, MaxDraining: p.maxDraining, Drain: p.drain, StopSignal: stopSignal,
		NonBlocking: true, Relay: w.relay, Shim: []string{"shim"},
	}
	for _, name := range []string{"a", "b"}[:p.endpoints] {
		spec, err := handoff.ParseSpec(name + "=" + ownAddress() + ":0")
		if err != nil {
			panic(err)
		}
		cfg.Specs = append(cfg.Specs, spec)
	}
	return cfg
}
