package handoff

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/conns"
)

// InUseError says that somebody else listens at an address.
type InUseError struct {
	Addr netip.AddrPort
	PID  int    // 0 if the owner could not be found
	Name string // of the owner's program
	UID  uint32
	Err  error
	// Closing: nobody listens there; connections of its last user are still closing.
	Closing bool
}

func (e *InUseError) Error() string {
	switch {
	case e.Closing:
		return "in use, though nobody listens there: connections of its last user are still closing; try again in a minute, or choose another address"
	case e.PID != 0:
		return fmt.Sprintf("in use by pid %d (%s); stop it, or choose another address", e.PID, e.Name)
	case e.UID != 0:
		return fmt.Sprintf("in use by a process of uid %d; stop it, or choose another address", e.UID)
	}
	return "in use by a process that this user may not see; stop it, or choose another address"
}

func (e *InUseError) Unwrap() error { return e.Err }

// lookTimeout bounds the search for the owner of an address, which reads /proc.
const lookTimeout = 3 * time.Second

// inUse turns the kernel's answer to bind or listen into one that a person can
// act on.
func inUse(ep *Endpoint, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
		defer cancel()
		foreign, lookErr := ep.Foreign(ctx)
		if lookErr == nil && len(foreign) > 0 {
			return foreign[0]
		}
		return &InUseError{Addr: ep.addr, Err: err, Closing: lookErr == nil}
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf(`%w; run as root, or "setcap cap_net_bind_service+ep $(command -v gapless)"`, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%w: no interface of this machine has that address", err)
	}
	return err
}

// Foreign finds listeners of other processes that take, or could take, traffic
// of this endpoint: any on its port whose address overlaps, whatever its family,
// device or flags, since one with another key is a group of its own and may take
// precedence. It reads the kernel's list of listeners, and /proc for the owners.
func (ep *Endpoint) Foreign(ctx context.Context, known ...uint64) ([]*InUseError, error) {
	known = append(known, ep.Inodes()...)
	return Foreign(ctx, ep.addr, func(context.Context) ([]uint64, error) { return known, nil })
}

// Foreign is the same for any goroutine: known asks for the inodes of one's own
// listeners. Listeners come and go meanwhile: known is asked before and after the
// look, and who is a stranger has to be there still when known has answered.
func Foreign(ctx context.Context, at netip.AddrPort, known func(context.Context) ([]uint64, error)) ([]*InUseError, error) {
	before, err := known(ctx)
	if err != nil {
		return nil, err
	}
	found, err := overlapping(ctx, at)
	if err != nil {
		return nil, err
	}
	after, err := known(ctx)
	if err != nil {
		return nil, err
	}
	strange := func(c conns.Conn) bool { return !slices.Contains(before, c.Inode) && !slices.Contains(after, c.Inode) }
	if !slices.ContainsFunc(found, strange) {
		return nil, nil
	}
	still, err := overlapping(ctx, at)
	if err != nil {
		return nil, err
	}
	return strangers(ctx, slices.DeleteFunc(found, func(c conns.Conn) bool {
		same := func(other conns.Conn) bool { return other.Inode == c.Inode }
		return !strange(c) || !slices.ContainsFunc(still, same)
	}))
}

func strangers(ctx context.Context, found []conns.Conn) ([]*InUseError, error) {
	if len(found) == 0 {
		return nil, nil
	}
	var inodes []uint64
	for _, c := range found {
		inodes = append(inodes, c.Inode)
	}
	owners, err := conns.Owners(ctx, inodes...)
	var foreign []*InUseError
	for _, c := range found {
		owner := owners[c.Inode]
		foreign = append(foreign, &InUseError{Addr: c.Local, UID: c.UID, PID: owner.PID, Name: owner.Name, Err: unix.EADDRINUSE})
	}
	return foreign, err
}

// overlapping are the listeners that could take connections to the address. One
// that is just being closed has no inode any more.
func overlapping(ctx context.Context, at netip.AddrPort) ([]conns.Conn, error) {
	found, err := listenersAt(ctx, at.Port())
	return slices.DeleteFunc(found, func(c conns.Conn) bool {
		return c.Inode == 0 || !overlap(at.Addr(), c.Local.Addr())
	}), err
}

func listenersAt(ctx context.Context, port uint16) ([]conns.Conn, error) {
	d, err := conns.Open()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Dump(ctx, conns.Query{States: conns.Set(conns.Listen), Ports: []uint16{port}})
}

// Inodes are those of all listeners open here.
func (ep *Endpoint) Inodes() []uint64 {
	var inodes []uint64
	for _, l := range slices.Concat(ep.steering.members(), ep.open) {
		inodes = include(inodes, l.inode)
	}
	return inodes
}

// overlap is generous: a wildcard of IPv6 meets everything, since it may serve
// both families.
func overlap(a, b netip.Addr) bool {
	return a.WithZone("") == b.WithZone("") || covers(a, b) || covers(b, a)
}

func covers(wildcard, a netip.Addr) bool {
	return wildcard.IsUnspecified() && (wildcard.Is6() || a.Is4())
}
