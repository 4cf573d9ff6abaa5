package reload

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/ready"
)

// watcher is what a goroutine that waits for readiness needs to know.
type watcher struct {
	sys     *system
	options ready.Options
	target  ready.Target
	said    <-chan struct{}
	// notifies: some generation of the service has said READY=1.
	notifies bool
	holds    func() error
	lacks    string // an address that it has not bound yet
}

func (s *Service) watcher(g *generation) watcher {
	w := watcher{sys: &s.sys, options: s.cfg.Ready, said: g.said, target: ready.Target{Addrs: s.addrs(), Dir: s.workDir(g)}}
	w.notifies, w.lacks = s.st.Notifies, s.lacks(g)
	if env, err := s.environment(g, nil); err == nil {
		w.target.Env = env
	}
	var inodes []uint64
	var addrs []netip.AddrPort
	for i, l := range g.listeners.each() {
		inodes, addrs = append(inodes, l.Inode()), append(addrs, s.eps[i].Addr())
	}
	w.holds = func() error { return w.holdsAll(g.proc, inodes, addrs) }
	return w
}

func (w watcher) wait(ctx context.Context) error {
	if w.lacks != "" {
		<-ctx.Done()
		return fmt.Errorf("it has not bound %s: %w", w.lacks, context.Cause(ctx))
	}
	if err := w.ready(ctx); err != nil {
		return err
	}
	return w.holds()
}

func (w watcher) ready(ctx context.Context) error {
	switch {
	case w.options.Mode == ready.Listen:
		return nil // nothing is lacking
	case w.options.Mode == ready.Notify:
		return w.hear(ctx)
	case w.options.Mode == ready.Delay:
		return w.stayAlive(ctx)
	case w.options.Mode == ready.Probe:
		return w.sys.probe(ctx, w.options, w.target)
	case w.options.Mode == ready.Accept:
		return w.sys.accepted(ctx, w.target.Addrs)
	}
	return w.auto(ctx)
}

func (w watcher) hear(ctx context.Context) error {
	select {
	case <-w.said:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("it has not said READY=1: %w", context.Cause(ctx))
	}
}

func (w watcher) stayAlive(ctx context.Context) error {
	t := time.NewTimer(w.options.Delay)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// auto: it has accepted a connection on each listener and, if its service ever said
// READY=1, has said so. Either alone is too little: gunicorn says it before a worker
// has loaded the application, and a daemon behind a wrapper may say it of a port of
// its own.
func (w watcher) auto(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	accepted := make(chan error, 1)
	go func() { accepted <- w.sys.accepted(ctx, w.target.Addrs) }()
	for said := w.said; ; {
		select {
		case <-said:
			said = nil
			if err := w.holds(); err != nil {
				cancel()
				<-accepted
				return err
			}
		case err := <-accepted:
			if err != nil || !w.notifies {
				return err
			}
			return w.hear(ctx)
		}
	}
}

// lastMoment is between a process's closing its descriptors and its being known to
// have ended.
const lastMoment = time.Second

// holdsAll finds listeners that the daemon has closed: our duplicate would go on
// taking clients that nobody accepts. One that ends has closed them too, but how it
// ended is the better reason.
func (w watcher) holdsAll(proc process, inodes []uint64, addrs []netip.AddrPort) error {
	missing, err := w.sys.missing(proc, inodes)
	if err != nil || len(missing) == 0 {
		return nil // what can't be read can't be held against it
	}
	select {
	case <-proc.Exited():
		return errEnded
	case <-time.After(lastMoment):
		return fmt.Errorf("it has closed its listener at %s", addrs[missing[0]])
	}
}

var errEnded = errors.New("it has ended")

// lacks is an address at which g must have a listener, and has none, or, where it is
// ready when it listens, has not asked to; "" if there is none.
func (s *Service) lacks(g *generation) string {
	if len(s.everyEndpoint()) == 0 {
		return "any address"
	}
	for i, e := range s.eps {
		at := g.has(i, e)
		listens := s.cfg.Ready.Mode != ready.Listen || slices.ContainsFunc(at, func(l *handoff.Listener) bool { return g.listened[l] })
		if !e.closed && (len(at) == 0 || !listens) {
			return e.Addr().String()
		}
	}
	return ""
}
