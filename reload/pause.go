package reload

import (
	"context"
	"fmt"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// Pause has new connections wait in the backlog until [Service.Resume], whatever
// becomes of the daemon meanwhile; those that are open go on. A generation that is
// started in a pause gets none of them before its end either. Nobody is refused, however
// long it lasts, as long as there is room in the backlog. A second one changes nothing.
func (s *Service) Pause(ctx context.Context) error {
	_, err := s.order(ctx, func(reply chan<- answer) { reply <- answer{failure: s.pause()} })
	return err
}

// Resume ends a pause: new connections go to the live generation, and those that
// waited are relayed to it. It tells how many waited.
func (s *Service) Resume(ctx context.Context) (waited int, err error) {
	failed := s.ask(ctx, func() { waited, err = s.resume() })
	if failed != nil {
		return 0, failed
	}
	return waited, err
}

func (s *Service) paused() bool { return !s.st.Paused.IsZero() }

func (s *Service) pause() error {
	switch {
	case s.st.Goal == state.End:
		return s.refusal(CodeNotRunning, "is ending")
	case s.shared() != nil:
		return s.refusal(CodeFailed, fmt.Sprintf("can't be paused: at %s generations share one listener, from which the daemon accepts", s.shared().Addr()))
	case s.paused():
		return nil
	}
	if err := s.holdClients(); err != nil {
		return s.refusal(CodeFailed, "can't be paused: "+err.Error())
	}
	s.stopTimer(&s.hold)
	s.emit(event{kind: "service.paused", text: s.cfg.Name + ": paused; new connections wait"})
	return nil
}

// holdClients has everybody who comes wait in the reserve. On error all is as it was, but for
// listeners that nobody is steered to.
func (s *Service) holdClients() error {
	if err := s.stopRefusing(); err != nil {
		return err
	}
	for i, e := range s.eps {
		if e.reserve != nil || e.closed {
			continue
		}
		l, err := e.Reserve()
		if err != nil {
			s.dropReserve()
			return err
		}
		s.setReserve(i, l)
	}
	s.st.Paused = time.Now()
	if err := s.direct(nil); err != nil {
		s.st.Paused = time.Time{}
		s.dropReserve()
		return err
	}
	return nil
}

// dropReserve closes what nobody waits in.
func (s *Service) dropReserve() {
	for i, e := range s.eps {
		if l := e.reserve; l != nil && !s.gets(i, l) {
			s.setReserve(i, nil)
			s.closeAbandoned(i, l)
		}
	}
}

// stopRefusing: clients may wait again.
func (s *Service) stopRefusing() error {
	for _, e := range s.everyEndpoint() {
		if err := e.Resume(); err != nil {
			return err
		}
	}
	s.st.Refusing = false
	return nil
}

func (s *Service) resume() (waited int, err error) {
	if !s.paused() {
		return 0, s.refusal(CodeFailed, "is not paused")
	}
	since := s.st.Paused
	s.st.Paused = time.Time{}
	live := s.liveGeneration()
	if err := s.direct(live); err != nil {
		s.st.Paused = since
		return 0, s.refusal(CodeFailed, "can't be resumed: "+err.Error())
	}
	if live != nil {
		waited = s.abandonReserve(s.resumed)
	} else {
		s.nobodyLive()
	}
	s.emit(event{kind: "service.resumed", fields: map[string]any{"waited": waited, "paused_ms": time.Since(since).Milliseconds()},
		text: fmt.Sprintf("%s: resumed after %s; %d connections had waited", s.cfg.Name, round(time.Since(since)), waited)})
	return waited, nil
}

// resumed counts those who waited on purpose.
func (s *Service) resumed(clients int) { s.st.Resumed += clients }
