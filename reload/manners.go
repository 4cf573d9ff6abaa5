package reload

// Drain says when a generation that has settled is told to stop.
type Drain string

// With DrainSignal that is at once, with DrainConnections when its connections are gone or
// the drain timeout is over. DrainAuto is the former for daemons that take the signal
// well; for others it is the latter, or earlier, when all that is open has been idle for
// [Config.DrainIdle]. Where generations share a listener the old one accepts until it is
// told to stop, so it is told at once.
const (
	DrainAuto        Drain = "auto"
	DrainSignal      Drain = "signal"
	DrainConnections Drain = "connections"
)

// takesSignalWell tells whether the daemon of g finishes what it has when it gets the stop
// signal. One that knows its manager does, as far as anybody can tell: it said READY=1, or
// took the listeners that it was given. Many others just end.
func (s *Service) takesSignalWell(g *generation) bool {
	return s.record(g).Notified || !g.own
}

// finishesFirst tells whether the connections of g are waited for before it is told to
// stop.
func (s *Service) finishesFirst(g *generation) bool {
	switch {
	case s.shared() != nil:
		return false
	case s.cfg.Drain == DrainAuto:
		return !s.takesSignalWell(g)
	}
	return s.cfg.Drain == DrainConnections
}

// drainWarnings are of what was asked for and can't be.
func (s *Service) drainWarnings() []string {
	if e := s.shared(); e != nil && s.cfg.Drain == DrainConnections {
		return []string{"connections are not waited for before the stop signal: at " + e.Addr().String() + " generations share one listener, from which the old one accepts until it is told to stop"}
	}
	return nil
}
