package bind

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
)

// ErrNoAccess is wrapped where the kernel does not let this process look into the
// daemon: ptrace(2), "Ptrace access mode checking".
var ErrNoAccess = errors.New("no access to the process")

// ErrGone is wrapped where the thread that waited for an answer is no more, or waits no
// longer. Nothing is left to do for its call.
var ErrGone = errors.New("its thread has gone")

// ErrMoved is wrapped where the daemon's descriptor is of another file by now.
var ErrMoved = errors.New("it is another file by now")

// ErrAnswered is the error of a second answer.
var ErrAnswered = errors.New("can't answer a call twice")

// UnavailableError says why there can be no filter here.
type UnavailableError struct {
	Reason string // for people; whole, without the text of Err
	Err    error  // the kernel's
}

func (e *UnavailableError) Error() string { return e.Reason }

func (e *UnavailableError) Unwrap() error { return e.Err }

// Op is a system call that is notified.
type Op int

// The two of them.
const (
	Bind Op = iota + 1
	Listen
)

func (o Op) String() string {
	switch o {
	case Bind:
		return "bind"
	case Listen:
		return "listen"
	}
	return fmt.Sprintf("Op(%d)", int(o))
}

// Call is a system call of the daemon's that waits for an answer: exactly one, by
// [Call.Continue] or [Call.Answer]. Its methods may be called by any goroutine, while
// its [Watch] is open.
type Call struct {
	Op Op
	// TID is the thread that waits, PID its process; PID is 0 if Unread says so.
	TID, PID int
	// FD is the daemon's number for the socket, as it stood in the call.
	FD int
	// Backlog of a Listen.
	Backlog int
	// Addr of a Bind to AF_INET or AF_INET6. An IPv4 address that was given as IPv6 stays
	// one; the zone is the interface's name or, where it has none here, its number.
	Addr netip.AddrPort
	// Family of the address of a Bind, 0 if it has none.
	Family int
	// Unread is why the address or the process is not known: it may wrap ErrNoAccess, or
	// EFAULT, which the kernel will say itself if the call continues.
	Unread error

	watch    *Watch
	id       uint64
	answered atomic.Bool
}

func (c *Call) String() string {
	if c.Op == Listen {
		return fmt.Sprintf("listen(%d, %d) of process %d", c.FD, c.Backlog, c.PID)
	}
	return fmt.Sprintf("bind(%d, %s) of process %d", c.FD, c.Addr, c.PID)
}

// Socket is a duplicate of a daemon's socket, and what was read of it. It is used by
// one goroutine at a time.
type Socket struct {
	// FD is this process's own, close-on-exec, and closed by Close.
	FD int
	// Inode names the socket for as long as anybody has it open.
	Inode uint64
	// Family, Type and Protocol as in socket(2).
	Family, Type, Protocol int
	// V6Only of an AF_INET6 socket.
	V6Only bool
	// Device is the index of the interface that it is bound to (SO_BINDTODEVICE), or 0.
	Device int
	// Netns is the cookie of its network namespace, 0 if the kernel tells none (before 5.14).
	Netns uint64
	// UID of the socket, that is, of who made it.
	UID uint32
	// ReusePort tells whether SO_REUSEPORT is on.
	ReusePort bool
	// Bound tells whether it has a local port, Listening whether it listens.
	Bound, Listening bool
}

// Access is what this process may do with one of its daemons; nil is yes.
type Access struct {
	// Memory: the address of a bind can be read. Without it nothing can be done.
	Memory error
	// Duplicate: the daemon's socket can be had and bound in its stead.
	Duplicate error
	// Replace: another socket can be put in its place.
	Replace error
}
