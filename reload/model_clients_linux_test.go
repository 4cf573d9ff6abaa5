package reload

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/state"
)

// connectTimeout is real time, and enough for two more attempts where a packet was
// lost. Who has no answer by then has met a listener that drops everybody: connect(2)
// fails with EINPROGRESS (socket(7), SO_SNDTIMEO), in minutes less than by itself.
const connectTimeout = 5

// connect as a client does. Loopback answers at once, and an end of a client is a
// reset, which leaves nothing in TIME_WAIT.
func connect(to netip.AddrPort) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: connectTimeout})
	}
	if err == nil {
		err = connectTo(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// connectTo goes on after a signal, which the kernel does not by itself where there is
// a time limit (signal(7)): a second connect(2) waits for the first.
func connectTo(fd int, at unix.Sockaddr) error {
	for {
		if err := unix.Connect(fd, at); err != unix.EINTR {
			return err
		}
	}
}

func wasRefused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

// taken: the first client that waits in a listener was accepted. It goes.
func (w *world) taken(inode uint64) {
	queue := w.queues[inode]
	if len(queue) == 0 {
		w.violate("a client that nobody knows of was accepted")
		return
	}
	unix.Close(queue[0])
	w.queues[inode] = queue[1:]
}

// dropQueue: the kernel has reset who waited there.
func (w *world) dropQueue(inode uint64) {
	for _, fd := range w.queues[inode] {
		unix.Close(fd)
	}
	delete(w.queues, inode)
}

// dropReset forgets those who wait and were reset.
func (w *world) dropReset() {
	const closed = 7
	for inode, queue := range w.queues {
		w.queues[inode] = slices.DeleteFunc(queue, func(fd int) bool {
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			reset := err == nil && info.State == closed
			if reset {
				unix.Close(fd)
			}
			return reset
		})
	}
}

func (w *world) dropQueues() {
	for inode := range w.queues {
		w.dropQueue(inode)
	}
}

// relay is the worker's end: who the service hands on has waited in some listener.
func (w *world) relay(_ context.Context, _ string, clients []handoff.File) error {
	defer handoff.CloseFiles(clients)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.relayed += len(clients)
	for _, c := range clients {
		ends, err := endsOf(c.FD)
		if err != nil || !w.forget(ends) {
			w.violate("a client was relayed that did not wait (%v)", err)
		}
	}
	return nil
}

// forget a client that waits, by both ends: two clients of two endpoints may have one
// port.
func (w *world) forget(theirs ends) bool {
	for inode, queue := range w.queues {
		for i, fd := range queue {
			its, err := endsOf(fd)
			if err == nil && its.here == theirs.there && its.there == theirs.here {
				unix.Close(fd)
				w.queues[inode] = append(append([]int(nil), queue[:i]...), queue[i+1:]...)
				return true
			}
		}
	}
	return false
}

// ends are the ports of a connection, as one side has them.
type ends struct{ here, there int }

func endsOf(fd int) (ends, error) {
	here, err := unix.Getsockname(fd)
	if err != nil {
		return ends{}, err
	}
	there, err := unix.Getpeername(fd)
	if err != nil {
		return ends{}, err
	}
	return ends{here.(*unix.SockaddrInet4).Port, there.(*unix.SockaddrInet4).Port}, nil
}

// unheard: a daemon has shut a listener down, and the guard is slow. Until it has
// spoken nobody knows where clients go.
func (w *world) unheard() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.shutAt) < 10*time.Millisecond
}

func (w *world) checkRefused() {
	if st := &w.s.st; !st.Refusing && st.Goal != state.End {
		w.violate("a client was refused")
	}
}

// arrived finds the listener that has one more than there were.
func (w *world) arrived(i, fd int) {
	for _, l := range w.listeners() {
		if n, _, err := l.Queue(); err != nil || n != len(w.queues[l.Inode()])+1 {
			continue
		}
		w.queues[l.Inode()] = append(w.queues[l.Inode()], fd)
		w.checkArrival(i, l)
		return
	}
	unix.Close(fd)
	if w.s.st.Goal != state.End {
		w.violate("a client connected, and nobody has it")
	}
}

// checkArrival: new connections are live's, and where nobody is, they wait for whom
// the traffic goes to next.
func (w *world) checkArrival(i int, l *handoff.Listener) {
	owner := w.s.ownerOf(i, l)
	live := w.s.st.Live()
	switch {
	case w.plan.shared, w.s.st.Goal == state.End:
	case owner != nil && w.s.record(owner).Phase == state.Canary && w.s.st.Share > 0 && !w.s.paused():
	case !slices.Contains(w.s.eps[i].Plan().Live, l):
		w.violate("the kernel sent a client to a listener of generation %d, which the plan does not name", numberOf(owner))
	case w.s.paused() && owner != nil:
		w.violate("in a pause a client went to generation %d", owner.number)
	case w.s.paused():
	case live != nil && w.s.st.Share == 1:
		w.violate("a canary has everything, and a client went to generation %d", numberOf(owner))
	case live != nil && numberOf(owner) != live.Number:
		w.violate("generation %d is live, and a client went to %d", live.Number, numberOf(owner))
	case live == nil && owner != nil && w.s.record(owner).Phase != state.Starting && w.s.record(owner).Phase != state.Failed:
		w.violate("nobody is live, and a client went to generation %d, which is %s", owner.number, w.s.record(owner).Phase)
	}
}

// listeners are all that the service has.
func (w *world) listeners() (all []*handoff.Listener) {
	for _, g := range w.s.runs {
		all = append(all, g.listeners.all()...)
	}
	for _, e := range w.s.eps {
		if e.reserve != nil {
			all = append(all, e.reserve)
		}
	}
	return all
}
