package reload

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
)

// settling is that of some listeners, of which it has duplicates.
type settling struct {
	w       *world
	sockets daemon
	took    time.Duration
	of      int // the generation; 0 if it is none's
}

// settler is called by the service's owner.
func (w *world) settler(old ...*handoff.Listener) settler {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &settling{w: w, took: w.slow}
	for _, l := range old {
		w.inherit(&f.sockets, l.FD())
		for i := range w.s.eps {
			f.of = max(f.of, numberOf(w.s.ownerOf(i, l)))
		}
	}
	w.settled[f.of] = false
	return f
}

// Wait until the queues are empty, for at most 3 s.
func (f *settling) Wait(ctx context.Context) (handoff.Settled, error) {
	defer f.sockets.closeSockets()
	err := pauseFor(ctx, f.took)
	for range 30 {
		if err != nil || f.queued() == 0 {
			break
		}
		err = pauseFor(ctx, 100*time.Millisecond)
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.settled[f.of] = err == nil
	return handoff.Settled{Queued: f.queued(), Took: f.took}, err
}

func (f *settling) queued() int {
	n := 0
	for _, s := range f.sockets.sockets {
		n += queueOf(s.fd)
	}
	return n
}

// queueOf a listener, as [handoff.Listener.Queue]; 0 if it does not listen.
func queueOf(fd int) int {
	const listening = 10
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.State != listening {
		return 0
	}
	return int(info.Unacked)
}
