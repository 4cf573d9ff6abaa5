package reload

import (
	"fmt"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/reload/spawn"
	"github.com/gapless-dev/gapless/reload/state"
)

// waits are how long a step waits for nothing to happen.
var waits = []time.Duration{time.Millisecond, 30 * time.Millisecond, 120 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 6 * time.Second, 35 * time.Second, 70 * time.Second}

func (l *life) do(one step) {
	switch one.kind {
	case doReload:
		l.reload(one, ReloadOptions{Reason: "reload"})
	case doSupersede:
		l.reload(one, ReloadOptions{Reason: "newer", Supersede: true})
	case doReloadIf:
		l.reload(one, ReloadOptions{Reason: "conditional", IfGeneration: 1 + one.arg%4})
	case doTrigger:
		l.foretell(func(m *machine) { m.reload(l.world, ReloadOptions{}, 1+one.arg%3) })
		for range 1 + one.arg%3 {
			l.s.Trigger(ReloadOptions{Reason: "SIGHUP"})
		}
	case doRollback:
		l.send("rollback", func(reply chan<- answer) {
			l.foretell(func(m *machine) { m.rollback(l.world) })
			l.s.rollback("rollback", reply)
		})
	case doStart:
		l.send("start", func(reply chan<- answer) {
			l.foretell(func(m *machine) { m.start(l.world) })
			l.s.requestStart(reply)
		})
	case doStop:
		l.foretell((*machine).stop)
		l.call("stop", func() error { return l.s.Stop(l.ctx) })
	default:
		l.order(one)
	}
}

func (l *life) foretell(what func(*machine)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	what(&l.machine)
}

func (l *life) reload(one step, o ReloadOptions) {
	l.send(fmt.Sprintf("reload %+v", one), func(reply chan<- answer) {
		l.foretell(func(m *machine) { m.reload(l.world, o, 1) })
		l.s.request(o, reply)
	})
}

// send a request, with room for more answers than there may be.
func (l *life) send(what string, how func(reply chan<- answer)) {
	r := &asking{what: what, answers: make(chan answer, 4)}
	if l.s.ask(l.ctx, func() { how(r.answers) }) == nil {
		l.requests = append(l.requests, r)
	}
}

// order is what is asked of a service beside reloads.
func (l *life) order(one step) {
	switch one.kind {
	case doCanaryReload:
		l.reload(one, ReloadOptions{Reason: "canary", Canary: shares[one.arg%len(shares)]})
	case doSetShare:
		l.send("share", func(reply chan<- answer) {
			l.foretell(func(m *machine) { m.share(l.world) })
			l.s.setShare(shares[one.arg%len(shares)].Share, reply)
		})
	case doPromote:
		l.foretell(func(m *machine) { m.promote(l.world) })
		l.call("promote", func() error { _, err := l.s.Promote(l.ctx); return err })
	case doPause:
		l.call("pause", func() error { return l.s.Pause(l.ctx) })
	case doResume:
		l.call("resume", func() error { _, err := l.s.Resume(l.ctx); return err })
	default:
		l.happen(one)
	}
}

// call has a goroutine of its own, as the answer may come late.
func (l *life) call(what string, how func() error) {
	l.calls++
	go func() { l.called <- how() }()
	synctest.Wait()
}

// happen is what nobody asked for.
func (l *life) happen(one step) {
	switch one.kind {
	case doReady:
		l.to(state.Starting, one, (*daemon).become)
	case doCandidateExits:
		l.to(state.Starting, one, func(d *daemon) { d.endBy(spawn.Exit{Code: one.arg % 3}) })
	case doLiveCrashes:
		l.to(state.Live, one, func(d *daemon) { d.endBy(spawn.Exit{Code: one.arg % 3}) })
	case doCanaryExits:
		l.to(state.Canary, one, func(d *daemon) { d.endBy(spawn.Exit{Code: one.arg % 3}) })
	case doKeptCrashes:
		l.to(state.Probation, one, func(d *daemon) { d.endBy(spawn.Exit{Code: one.arg % 3}) })
	case doDrainingEnds:
		l.to(state.Draining, one, func(d *daemon) { d.endBy(spawn.Exit{}) })
	case doChildEnds:
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, d := range l.daemons {
			d.child = false
			d.settle()
		}
	case doConnect:
		l.visit(one.arg % l.plan.endpoints)
	case doServe:
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, d := range l.daemons {
			d.serve()
		}
	case doFinish:
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, d := range l.daemons {
			d.finish()
		}
	case doShutListener:
		if l.unheard() { // of two at one moment nobody can tell the order, see package handoff
			return
		}
		l.to(phases[one.arg%len(phases)], one, func(d *daemon) { d.shutListener(one.arg) })
	case doDeploy:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.deploy(deployment(one.arg % int(deployments)))
	case doSlowSettling:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.slow = []time.Duration{time.Millisecond, 5 * time.Millisecond, 2 * time.Second, 6 * time.Second}[one.arg%4]
	case doUnwell:
		l.to(phases[one.arg%len(phases)], one, (*daemon).sicken)
	case doWait:
		l.machine.blind = true
		time.Sleep(waits[one.arg%len(waits)])
	}
}

var phases = []state.Phase{state.Starting, state.Live, state.Probation, state.Draining, state.Canary}

// to does something to a daemon in a phase, if there is one.
func (l *life) to(p state.Phase, one step, what func(*daemon)) {
	l.s.ask(l.ctx, func() {
		all := l.in(p)
		if len(all) == 0 {
			return
		}
		number := all[one.arg/8%len(all)].Number
		l.mu.Lock()
		d := l.daemons[number]
		l.mu.Unlock()
		if d == nil {
			return
		}
		l.foretell(func(m *machine) { m.happen(l.world, one, d) })
		what(d)
	})
}

// finish the connections, but for one in three.
func (d *daemon) finish() {
	keep := len(d.conns) / 3
	for _, fd := range d.conns[keep:] {
		if !d.ended {
			unix.Close(fd)
		}
	}
	d.conns = d.conns[:keep]
}

// shutListener is what a daemon should not do to one that it was given.
func (d *daemon) shutListener(arg int) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if d.ended || len(d.sockets) == 0 {
		return
	}
	d.shut(d.sockets[arg/4%len(d.sockets)])
}
