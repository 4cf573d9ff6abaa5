package reload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/state"
)

// ErrEnded answers requests to a service that has ended.
var ErrEnded = errors.New("the service has ended")

// Service is one daemon and the addresses it answers on. All methods but Run may be
// called by any goroutine, from New on; they wait for Run to take them up.
type Service struct {
	cfg    Config
	inbox  chan func()
	ended  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	guard  *handoff.Guard
	sys    system
	// addresses are what others than the owner may know of the endpoints.
	addresses atomic.Pointer[[]state.Endpoint]

	// All below is Run's.
	st         state.Service
	eps        []*endpoint
	runs       map[int]*generation
	current    *rollout // under way
	next       *rollout // waits for current; who asks meanwhile joins it
	trial      *trial
	canary     *canary
	programs   map[int]*program // by their origin
	restart    *time.Timer
	hold       *time.Timer
	stopped    []chan error
	lastLive   time.Time // when the last live generation ended, or Run began, while there is none
	hurried    bool      // told to end at once
	everLive   bool
	memoryTold bool // that there is too little
	bindNoted  bool // why binds are not seen, or what it costs
	pidWritten int
	pidFailing bool        // it has been told
	pidFile    *time.Timer // when it is tried again
	outcome    outcome
	journal    journal
}

// outcome is how the service ended for good.
type outcome struct {
	code      int
	err       error
	requested bool        // by a person, not by the daemon's end
	last      *generation // that was live then
}

// New takes the addresses, so that from then on clients can connect and wait.
func New(ctx context.Context, cfg Config) (*Service, error) {
	return newService(ctx, cfg, realSystem())
}

func newService(ctx context.Context, cfg Config, sys system) (*Service, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg = cfg.pair(ctx)
	if _, _, err := credential(cfg.User, cfg.Group); err != nil {
		return nil, err // better now than when clients wait already
	}
	guard, err := handoff.NewGuard()
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, inbox: make(chan func()), ended: make(chan struct{}), runs: map[int]*generation{}, programs: map[int]*program{}, guard: guard, sys: sys}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.st = state.Service{Version: state.Version, Name: cfg.Name, Goal: state.Run, Next: 1, Recipe: cfg.recipe()}
	if err := s.open(ctx); err != nil {
		s.release()
		return nil, err
	}
	s.publish()
	return s, nil
}

// Addrs are the addresses, with the ports that were taken for port 0, and those that
// the daemon has bound so far.
func (s *Service) Addrs() []state.Endpoint { return slices.Clone(*s.addresses.Load()) }

// Warnings are what the user should know before the start.
func (s *Service) Warnings() []string {
	var all []string
	for _, e := range s.eps {
		all = append(all, e.Warnings()...)
	}
	return append(all, s.drainWarnings()...)
}

// Name of the service.
func (s *Service) Name() string { return s.cfg.Name }

// Run starts the first generation and owns the service until it has ended: because
// the daemon ended for good, on Shutdown or Interrupt, or when ctx ends, which
// kills. It returns the exit code for the holder. It must be called once.
func (s *Service) Run(ctx context.Context) (int, error) {
	stop := context.AfterFunc(ctx, s.abandon)
	defer stop()
	s.wg.Go(s.watchListeners)
	s.nobodyLive()
	s.begin(&rollout{reason: "start"})
	for !s.finished() {
		(<-s.inbox)()
	}
	s.finish()
	return s.outcome.code, s.outcome.err
}

// finished: told to end, and nothing runs or is being started any more.
func (s *Service) finished() bool { return s.st.Goal == state.End && len(s.runs) == 0 }

func (s *Service) finish() {
	s.outcome.settle(s.cfg.StopSignal)
	s.emit(event{kind: "service.ended", text: fmt.Sprintf("%s: ended with code %d", s.cfg.Name, s.outcome.code)})
	s.closeEndpoints() // first, so that the address is free for whoever waits for the end
	close(s.ended)
	s.stopTimer(&s.restart)
	s.stopTimer(&s.hold)
	s.stopTimer(&s.pidFile)
	s.answerStopped()
	s.answerRollouts(ErrEnded)
	s.st.Back, s.st.Fallen, s.st.Pinned = nil, nil, 0
	s.sweepPrograms()
	s.release()
	s.journal.close()
}

func (s *Service) release() {
	s.cancel()
	s.closeEndpoints()
	s.closeInherited()
	s.guard.Close()
	s.wg.Wait()
}

// abandon kills everything: whoever runs the service does not wait any more.
func (s *Service) abandon() {
	s.post(func() {
		s.hurried = true // so that it kills
		s.interrupt()
	})
}

// post gives the owner something to do; false if the service has ended. It must
// not be called by the owner itself.
func (s *Service) post(f func()) bool {
	select {
	case s.inbox <- f:
		return true
	case <-s.ended:
		return false
	}
}

// ask runs f in the owner and waits until it has; f must not block.
func (s *Service) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case s.inbox <- func() { f(); close(done) }:
	case <-s.ended:
		return ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	<-done
	return nil
}

// after runs f in the owner when d has passed, unless the timer is stopped.
func (s *Service) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { s.post(f) })
}

func (s *Service) stopTimer(t **time.Timer) {
	if *t != nil {
		(*t).Stop()
		*t = nil
	}
}
