package conns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// dumpTries is how often a dump is made anew that the kernel calls inconsistent.
const dumpTries = 4

var errInterrupted = errors.New("the kernel's table changed during every attempt")

// Dump returns the sockets that q matches, in no order. It costs some milliseconds of CPU however few they are, and about
// 2 µs for each match. A socket that comes, goes or changes its state meanwhile may be missed or be there with its old state,
// and so may, rarely, another whose place in the kernel's table it changed; none is returned twice.
// After an error, a context's too, the Diag is good for the next call.
func (d *Diag) Dump(ctx context.Context, q Query) ([]Conn, error) {
	var all []Conn
	for _, family := range familiesOf(q.Families) {
		some, err := d.dump(ctx, family, q)
		if err != nil {
			return nil, dumpError(family, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

func familiesOf(asked []int) []int {
	if asked == nil {
		return []int{unix.AF_INET, unix.AF_INET6}
	}
	return asked
}

func dumpError(family int, err error) error {
	return fmt.Errorf("can't list %s connections: %w", familyName(family), err)
}

func (d *Diag) dump(ctx context.Context, family int, q Query) ([]Conn, error) {
	a, err := d.dumpTo(ctx, family, q, nil)
	if err != nil {
		return nil, err
	}
	return once(a.conns), nil
}

// dumpTo has, unless it is nil, a taker for every attempt made by begin, for sockets that are not to be gathered as Conns.
// Takers of attempts before the last have not heard all.
func (d *Diag) dumpTo(ctx context.Context, family int, q Query, begin func() (take func([]byte) error)) (*answer, error) {
	for range dumpTries {
		d.seq++
		a := &answer{seq: d.seq}
		if begin != nil {
			a.each = begin()
		}
		if len(q.Ports) > maxPorts {
			a.want = portSet(q.Ports)
		}
		if err := d.ask(ctx, dumpRequest(a.seq, family, q), a); err != nil {
			return nil, err
		}
		if !a.interrupted {
			return a, nil
		}
	}
	return nil, errInterrupted
}

// once drops repetitions: the kernel goes on from message to message by a socket's place in its bucket (net/ipv4/inet_diag.c), and
// meets one again when another has come in before it.
func once(all []Conn) []Conn {
	seen := make(map[uint64]bool, len(all))
	return slices.DeleteFunc(all, func(c Conn) bool {
		again := seen[c.Cookie]
		seen[c.Cookie] = true
		return again
	})
}

// Lookup asks for one connection by c's Local, Remote, Device and Cookie, and returns it as it is now, half-open ones too, with
// Info if the kernel has it: some microseconds, no dump. It reports false if there is none, or only one with another cookie; a
// listener is never returned in the place of a connection. The other fields of c are not looked at, so what Dump or Lookup has
// returned is a good question.
func (d *Diag) Lookup(ctx context.Context, c Conn) (Conn, bool, error) {
	found, ok, err := d.lookup(ctx, c)
	if err != nil {
		return Conn{}, false, fmt.Errorf("can't look up connection %s to %s: %w", c.Remote, c.Local, err)
	}
	return found, ok, nil
}

func (d *Diag) lookup(ctx context.Context, c Conn) (Conn, bool, error) {
	family, err := lookupFamily(c)
	if err != nil {
		return Conn{}, false, err
	}
	d.seq++
	a := &answer{seq: d.seq}
	err = d.ask(ctx, lookupRequest(a.seq, family, c), a)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) {
		return Conn{}, false, nil
	}
	if err != nil || len(a.conns) == 0 || !samePair(a.conns[0], c) {
		return Conn{}, false, err
	}
	return a.conns[0], true, nil
}

// lookupFamily is that of c's addresses. One exact question is enough: unlike a dump, it does not keep the tables apart, and
// AF_INET finds the IPv4 client of a dual-stack listener as well.
func lookupFamily(c Conn) (int, error) {
	local, remote := c.Local.Addr().Unmap(), c.Remote.Addr().Unmap()
	switch {
	case local.Is4() && remote.Is4():
		return unix.AF_INET, nil
	case local.Is6() && remote.Is6():
		return unix.AF_INET6, nil
	}
	return 0, errors.New("not two addresses of one family")
}

// samePair tells a connection from the listener that the kernel answers with when there is no such connection.
func samePair(a, b Conn) bool {
	return a.State != Listen && plain(a.Local) == plain(b.Local) && plain(a.Remote) == plain(b.Remote)
}

func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

func portSet(ports []uint16) map[uint16]bool {
	set := make(map[uint16]bool, len(ports))
	for _, port := range ports {
		set[port] = true
	}
	return set
}

func familyName(family int) string {
	switch family {
	case unix.AF_INET:
		return "IPv4"
	case unix.AF_INET6:
		return "IPv6"
	}
	return fmt.Sprintf("family %d", family)
}
