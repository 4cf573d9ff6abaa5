package reload

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/state"
)

// endpoint is an address with the listener that waits for the next generation.
type endpoint struct {
	*handoff.Endpoint
	name    string
	spec    handoff.Spec
	named   handoff.Key // what spec asks for
	reserve *handoff.Listener
	// found: nobody has named it; a daemon has bound it.
	found bool
	// closed: no generation that serves has anything there.
	closed bool
	// former are what it was at other keys, until nobody has a listener there; see rekey.
	former []*handoff.Endpoint
	// leftovers are listeners in which clients wait who came before a daemon had bound
	// its own socket. They are relayed when somebody is live.
	leftovers []*handoff.Listener
	// leaving are those of them that are being closed.
	leaving []*handoff.Listener
}

func (s *Service) open(ctx context.Context) error {
	if err := errors.Join(checkInherited(s.cfg), checkNames(s.cfg)); err != nil {
		return err
	}
	for i, spec := range s.cfg.Specs {
		ep, err := handoff.Open(ctx, spec, s.openOptions(s.cfg.Inherited[i]))
		if err != nil {
			return err
		}
		e := &endpoint{Endpoint: ep, name: nameOf(spec, i, s.cfg), spec: spec}
		if err := s.refuseForeign(ctx, ep); err != nil {
			return err
		}
		s.eps = append(s.eps, e)
		if err := s.holdReserve(e); err != nil {
			return err
		}
		e.named = ep.Key() // with the port that was taken for port 0
		s.st.Endpoints = append(s.st.Endpoints, s.describeEndpoint(e))
		s.st.Endpoints[i].Inherited = s.cfg.Inherited[i] != nil
	}
	return nil
}

func (s *Service) openOptions(in *handoff.Inherited) handoff.OpenOptions {
	return handoff.OpenOptions{Shared: s.cfg.Shared, Guard: s.guard, Inherited: in}
}

func (s *Service) describeEndpoint(e *endpoint) state.Endpoint {
	d := state.Endpoint{Name: e.name, Spec: e.spec.String(), Addr: e.Addr().String(), Steering: e.Steering(), Found: e.found, Closed: e.closed}
	if e.reserve != nil {
		d.Reserve = e.reserve.Inode()
	}
	return d
}

// redescribe is called when something of an endpoint has changed.
func (s *Service) redescribe(i int) {
	d := s.describeEndpoint(s.eps[i])
	if i < len(s.st.Endpoints) {
		d.Inherited = s.st.Endpoints[i].Inherited
		s.st.Endpoints[i] = d
	} else {
		s.st.Endpoints = append(s.st.Endpoints, d)
	}
	s.publish()
}

// publish what others than the owner may know of the endpoints.
func (s *Service) publish() {
	open := slices.DeleteFunc(slices.Clone(s.st.Endpoints), func(e state.Endpoint) bool { return e.Closed })
	s.addresses.Store(&open)
}

// all are the endpoint as it is and as it was.
func (e *endpoint) all() []*handoff.Endpoint {
	return append([]*handoff.Endpoint{e.Endpoint}, e.former...)
}

func (e *endpoint) left(l *handoff.Listener) bool { return slices.Contains(e.leftovers, l) }

// offered tells whether daemons get its listeners as LISTEN_FDS: where they are named,
// so that one that binds by itself has the same environment in each generation.
func (s *Service) offered(e *endpoint) bool {
	return s.cfg.Delivery != DeliveryBind && !e.found
}

// find adds an endpoint that nobody has named, or opens one again that was closed.
func (s *Service) find(spec handoff.Spec, key handoff.Key) int {
	ep := handoff.OpenAt(spec, key, s.openOptions(nil))
	for i, e := range s.eps {
		if e.found && e.closed && e.Key().Same(key) {
			e.Endpoint, e.closed = ep, false
			s.redescribe(i)
			return i
		}
	}
	i := len(s.eps)
	s.eps = append(s.eps, &endpoint{Endpoint: ep, name: s.freeName(), spec: spec, named: key, found: true})
	s.redescribe(i)
	return i
}

func (s *Service) freeName() string {
	for n := len(s.eps); ; n++ {
		name := fmt.Sprintf("%s-%d", s.cfg.Name, n)
		if n == 0 {
			name = s.cfg.Name
		}
		if !slices.ContainsFunc(s.eps, func(e *endpoint) bool { return e.name == name }) {
			return name
		}
	}
}

// rekey makes the endpoint one of another key, since the daemon's own socket is: -l 8080
// means all addresses, and the daemon may serve IPv4 alone. What was opened before stays
// until somebody is live, for the clients that wait there. Nobody may be live.
func (s *Service) rekey(i int, key handoff.Key) {
	e := s.eps[i]
	was := e.Endpoint
	if j := slices.IndexFunc(e.former, func(f *handoff.Endpoint) bool { return f.Key().Same(key) }); j >= 0 {
		e.Endpoint = e.former[j]
		e.former = slices.Delete(e.former, j, j+1)
	} else {
		e.Endpoint = handoff.OpenAt(e.spec, key, s.openOptions(nil))
	}
	e.former = append(e.former, was)
	if e.reserve != nil { // clients may wait in it
		l := e.reserve
		e.reserve = nil
		s.leaveOver(i, l)
	}
	s.redescribe(i)
}

// leaveOver keeps l for the clients that wait in it. One that is of another key gets no
// more of them: it might take those of the daemon's own socket (an exact address of IPv4
// before one of IPv6, or the older of two for all IPv6 addresses), and where that is not
// reached, a client is better refused.
func (s *Service) leaveOver(i int, l *handoff.Listener) {
	e := s.eps[i]
	e.leftovers = append(e.leftovers, l)
	if l.Endpoint() == e.Endpoint || l.Inherited() {
		return
	}
	if err := l.Endpoint().Loosen(l); err != nil {
		s.report("listener.loosen-failed", 0, err)
	}
}

// closeFormer closes what the endpoint was once nobody has a listener there.
func (s *Service) closeFormer(i int) {
	e := s.eps[i]
	e.former = slices.DeleteFunc(e.former, func(f *handoff.Endpoint) bool {
		at := func(l *handoff.Listener) bool { return l.Endpoint() == f }
		if slices.ContainsFunc(e.leftovers, at) || slices.ContainsFunc(e.leaving, at) {
			return false
		}
		for _, g := range s.runs {
			if slices.ContainsFunc(g.listeners.at(i), at) {
				return false
			}
		}
		if err := f.CloseAll(); err != nil {
			s.report("listener.close-failed", 0, err)
		}
		return true
	})
}

// abandonLeftovers: those who waited before a daemon had bound its own socket are
// relayed to it, now that it is live.
func (s *Service) abandonLeftovers(i int) {
	e := s.eps[i]
	all := e.leftovers
	e.leftovers = nil
	for _, l := range all {
		e.leaving = append(e.leaving, l)
		s.relayFrom(i, l, s.relayed)
		s.settle(s.ctx, 0, []*handoff.Listener{l}, func(handoff.Settled) {
			if !e.closed {
				s.relayFrom(i, l, s.relayed)
			}
			e.leaving = slices.DeleteFunc(e.leaving, func(other *handoff.Listener) bool { return other == l })
			if l.Endpoint() == e.Endpoint {
				s.closeAbandoned(i, l)
			}
			s.closeFormer(i)
		})
	}
}

// nameOf is what LISTEN_FDNAMES calls a listener: its own name, else the
// service's, as systemd calls a socket by its unit.
func nameOf(spec handoff.Spec, i int, cfg Config) string {
	switch {
	case spec.Name != "":
		return spec.Name
	case len(cfg.Specs) == 1:
		return cfg.Name
	}
	return fmt.Sprintf("%s-%d", cfg.Name, i)
}

// checkNames: a daemon finds its listeners by name. One that was given may be what
// another got by its place. Those of one systemd.socket(5) unit all have its name.
func checkNames(cfg Config) error {
	seen := map[string]bool{}
	for i, spec := range cfg.Specs {
		name := nameOf(spec, i, cfg)
		if seen[name] && cfg.Inherited[i] == nil {
			return fmt.Errorf("can't listen on %s: another listener has the name %s too", spec, name)
		}
		seen[name] = true
	}
	return nil
}

// refuseForeign: with SO_REUSEPORT a bind succeeds beside another process of the
// same user, and would share its traffic silently.
func (s *Service) refuseForeign(ctx context.Context, ep *handoff.Endpoint) error {
	if ep.Addr().Port() == 0 {
		return nil
	}
	foreign, err := ep.Foreign(ctx, s.knownInodes()...)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("can't listen on %s: %w", ep.Spec(), err)
	}
	if len(foreign) > 0 {
		return fmt.Errorf("can't listen on %s: %w", ep.Spec(), foreign[0])
	}
	return nil
}

func (s *Service) closeEndpoints() {
	for _, e := range s.eps {
		for _, ep := range e.all() {
			if err := ep.CloseAll(); err != nil {
				s.cfg.Log.Warn().Err(err).Str("event", "listener.close-failed").Send()
			}
		}
	}
}

// everyEndpoint of all that are open, as they are and as they were.
func (s *Service) everyEndpoint() (all []*handoff.Endpoint) {
	for _, e := range s.eps {
		if !e.closed {
			all = append(all, e.all()...)
		}
	}
	return all
}

// unserved: l is at an endpoint that only a generation which ends has found, and the
// live one knows nothing of.
func (s *Service) unserved(i int, l *handoff.Listener) bool {
	live := s.liveGeneration()
	return s.eps[i].found && s.gets(i, l) && live != nil && len(live.listeners.at(i)) == 0
}

// closeFound: nobody serves there any more, and a client is better refused.
func (s *Service) closeFound(i int) {
	e := s.eps[i]
	for _, ep := range e.all() {
		if err := ep.CloseAll(); err != nil {
			s.report("listener.close-failed", 0, err)
		}
	}
	e.closed, e.reserve, e.leftovers, e.former = true, nil, nil, nil // leaving ones are closed, and know it
	s.redescribe(i)
}
