package handoff

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Listener is one open socket at an endpoint. Its methods may be called by the
// goroutine that owns the endpoint only.
type Listener struct {
	ep    *Endpoint
	fd    int
	inode uint64

	pad    bool // ours alone: it holds a place in the array and serves nobody
	loose  bool // its daemon may take it out of the array at any moment
	hidden bool // no new connection can find it
	unsure bool // its place in the array is not known; only of pads, loose ones and the inherited one
	member bool // it is in the kernel's array
	closed bool

	deferred  int  // seconds of TCP_DEFER_ACCEPT, as its daemon has set it
	own       bool // the daemon made it, and it is a duplicate that we have
	inherited bool // another process keeps it open too: never shut down, never hidden, and always a member
	parked    bool // inherited, and no generation has it
}

// FD is the descriptor. It belongs to the listener: pass it on with [Send] or
// duplicate it, but never close it.
func (l *Listener) FD() int { return l.fd }

// Inode identifies the socket in /proc/PID/fd and in sock_diag.
func (l *Listener) Inode() uint64 { return l.inode }

// Inherited tells whether another process, that is no daemon of ours, has it too.
func (l *Listener) Inherited() bool { return l.inherited }

// Own tells whether a daemon made it, see [Endpoint.Join].
func (l *Listener) Own() bool { return l.own }

// Endpoint is the address that the listener is open at.
func (l *Listener) Endpoint() *Endpoint { return l.ep }

// Queue tells how many connections wait to be accepted and how many may.
// It fails with an error wrapping errors.ErrUnsupported where the system does
// not tell (TCP_INFO of a listening socket: tcpi_unacked and tcpi_sacked,
// tcp_get_info in net/ipv4/tcp.c).
func (l *Listener) Queue() (waiting, limit int, err error) { return queue(l.fd) }

// Restore puts back what a daemon that had the listener before may have changed for
// the next one: whether accept(2) blocks, which is the socket's and not the
// process's, and the backlog, which any listen(2) sets for all.
func (l *Listener) Restore(nonBlocking bool) error {
	if err := unix.SetNonblock(l.fd, nonBlocking); err != nil {
		return fmt.Errorf("can't restore the blocking mode of %s: %w", l, err)
	}
	// One that was shut down is mended in its turn: listening again unseen, it would
	// stand elsewhere in the kernel's array than we believe.
	if listening, err := isListening(l.fd); err != nil || !listening || !l.member {
		return err
	}
	if err := unix.Listen(l.fd, backlog(l.ep.spec)); err != nil {
		return fmt.Errorf("can't restore the backlog of %s: %w", l, err)
	}
	return nil
}

// Accept takes a waiting connection off the queue; ok is false when there is
// none. It is for a listener whose daemon is gone. The caller owns fd.
func (l *Listener) Accept() (fd int, ok bool, err error) {
	if err := unix.SetNonblock(l.fd, true); err != nil {
		return -1, false, fmt.Errorf("can't accept from %s: %w", l, err)
	}
	return accept(l.fd)
}

func (l *Listener) String() string {
	if l.pad {
		return fmt.Sprintf("pad %d at %s", l.inode, l.ep.Addr())
	}
	return fmt.Sprintf("listener %d at %s", l.inode, l.ep.Addr())
}

func (l *Listener) closeFD() error {
	if l.closed {
		return nil
	}
	l.closed, l.member = true, false
	if err := unix.Close(l.fd); err != nil {
		return fmt.Errorf("can't close %s: %w", l, err)
	}
	return nil
}

func inodeOf(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("can't stat a socket: %w", err)
	}
	return st.Ino, nil
}
