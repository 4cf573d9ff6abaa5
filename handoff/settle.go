package handoff

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of settling. A half-open connection whose client is gone stays for 63 s
// and more; after a lost packet the next SYN-ACK comes within 1 s, so 3 s tell one
// from the other. A client that was accepted and has had no answer for 5 s is
// idle (a browser's spare connection), or waits for an event.
const (
	handshakeTimeout = 3 * time.Second
	answerTimeout    = 5 * time.Second
	// settleMost is how long what was begun before a switch can take to settle, or to
	// be given up.
	settleMost    = handshakeTimeout + answerTimeout
	settleMinPoll = 3 * time.Millisecond
	settleMaxPoll = 25 * time.Millisecond
)

// Settled is how a settling ended: all zero but Took when nothing that was begun
// before the switch is on its way to the old listeners any more.
type Settled struct {
	HalfOpen   int // handshakes still under way: clients that have gone, or are very slow
	Queued     int // connections that wait in the old listeners, not accepted
	Unanswered int // connections accepted, younger than 5 s, without any answer yet
	Took       time.Duration
}

// Clean tells whether all was done within the limits.
func (s Settled) Clean() bool { return s.HalfOpen == 0 && s.Queued == 0 && s.Unanswered == 0 }

// Settler waits until nothing that was begun before a switch is on its way to the
// old listeners. It has duplicates of them, so it may run in a goroutine of its
// own, which must call Wait once; that closes the duplicates.
type Settler struct {
	fds      []int
	ports    []uint16
	families []int
	blind    error // why they can't be followed
}

// NewSettler is to be called by the endpoints' owner, after [Endpoint.Steer]. What
// goes wrong here (no descriptor is left) is what Wait reports.
func NewSettler(old ...*Listener) *Settler {
	s := &Settler{}
	for _, l := range old {
		if err := s.add(l); err != nil {
			s.close()
			s.blind = err
			break
		}
	}
	return s
}

func (s *Settler) add(l *Listener) error {
	if l.closed { // its number may be another's by now
		return fmt.Errorf("can't follow %s: %w", l, os.ErrClosed)
	}
	fd, err := unix.FcntlInt(uintptr(l.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("can't duplicate %s: %w", l, err)
	}
	s.fds = append(s.fds, fd)
	s.ports = include(s.ports, l.ep.addr.Port())
	s.families = include(s.families, family(l.ep.Key().Addr.Addr()))
	return nil
}

func include[T comparable](set []T, one T) []T {
	if slices.Contains(set, one) {
		return set
	}
	return append(set, one)
}

func (s *Settler) close() {
	for _, fd := range s.fds {
		unix.Close(fd)
	}
	s.fds = nil
}

// Wait returns when all is settled, when only what the limits leave out remains,
// or when ctx ends, then with its error. First (membarrier) no packet is being
// handled under the old program any more. Everything half-open, queued or not yet
// answered at the ports now is a superset of what the old listeners have; what
// comes later is not theirs. So that set is followed until it is empty. With any
// other error it could not be (sock_diag is refused), and Wait has waited for as long
// as it may take.
func (s *Settler) Wait(ctx context.Context) (Settled, error) {
	defer s.close()
	start := time.Now()
	left, err := Settled{}, s.blind
	if err == nil {
		left, err = s.follow(ctx, start)
	}
	if err != nil && ctx.Err() == nil {
		pause(ctx, settleMost-time.Since(start))
	}
	left.Took = time.Since(start)
	return left, err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
