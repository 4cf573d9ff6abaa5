package reload

import (
	"errors"
	"fmt"
	"time"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/state"
)

// nobodyLive starts the time after which connections are refused.
func (s *Service) nobodyLive() {
	s.lastLive = time.Now()
	s.holdOn()
}

// holdOn refuses connections when nobody has been live for the hold timeout, and
// sees to it that this is looked at in time. In a pause everybody waits.
func (s *Service) holdOn() {
	if s.st.Live() != nil || s.st.Goal == state.End || s.cfg.HoldTimeout < 0 || s.st.Refusing || s.paused() {
		return
	}
	s.stopTimer(&s.hold)
	if left := s.cfg.HoldTimeout - time.Since(s.lastLive); left > 0 {
		s.hold = s.after(left, s.holdOn)
		return
	}
	s.refuseAll()
}

// refuseAll needs every endpoint's reserve, and shuts down every listener that is
// not loose. So a generation that is starting is given its chance, and one that is
// settling, or finishes what it has, its time; then this is looked at again.
func (s *Service) refuseAll() {
	if s.current != nil || s.settling() {
		return
	}
	for _, e := range s.eps {
		if e.reserve == nil && !e.closed {
			return
		}
	}
	refused := false
	for _, e := range s.everyEndpoint() {
		if err := e.Refuse(); errors.Is(err, handoff.ErrInherited) {
			continue // clients wait, as they did before there was a holder
		} else if err != nil {
			if !errors.Is(err, handoff.ErrServing) {
				s.report("hold.refuse-failed", 0, err)
			}
			return
		}
		refused = true
	}
	if !refused {
		return
	}
	s.st.Refusing = true
	s.emit(event{kind: "hold.refusing", level: levelWarn,
		text: fmt.Sprintf("%s: no live generation for %s; connections are refused until there is one", s.cfg.Name, s.cfg.HoldTimeout)})
}

func (s *Service) settling() bool {
	for _, g := range s.runs {
		if g.unsettled || g.remnant != nil {
			return true
		}
	}
	return false
}
