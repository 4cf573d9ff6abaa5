package ready

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/conns"
)

// Accepted makes a connection to each address and returns when the candidate has
// accepted all of them, or ctx ends. Nothing is sent; the connections are closed
// as soon as they have been accepted.
func Accepted(ctx context.Context, addrs []netip.AddrPort) error {
	d, err := conns.Open()
	if err != nil {
		return fmt.Errorf("can't tell whether a connection was accepted: %w", err)
	}
	defer d.Close()
	for i, at := range addrs {
		others := append(append([]netip.AddrPort(nil), addrs[:i]...), addrs[i+1:]...)
		if err := accepted(ctx, d, at, others); err != nil {
			return err
		}
	}
	return nil
}

func accepted(ctx context.Context, d *conns.Diag, at netip.AddrPort, others []netip.AddrPort) error {
	c, err := handoff.Dial(ctx, at, others...)
	switch {
	case err != nil && ctx.Err() != nil:
		return notAccepted(ctx, at)
	case err != nil:
		return err
	}
	defer c.Close()
	theirs, there, err := serverEnd(ctx, d, c)
	switch {
	case ctx.Err() != nil:
		return notAccepted(ctx, at)
	case err != nil || !there:
		return err
	}
	// A look costs 11 µs, and the candidate is kept waiting for at most an eighth of
	// its own start.
	for every := 300 * time.Microsecond; ; every = min(every*9/8, 20*time.Millisecond) {
		done, err := off(ctx, d, theirs)
		if done || err != nil && ctx.Err() == nil {
			return err
		}
		if sleep(ctx, every) != nil {
			return notAccepted(ctx, at)
		}
	}
}

func notAccepted(ctx context.Context, at netip.AddrPort) error {
	return fmt.Errorf("it has not accepted a connection on %s (does it take the listener that it is given, in LISTEN_FDS?): %w", at, context.Cause(ctx))
}

// serverEnd is the other end of c; there is none if it has been accepted and closed. Where
// the listener is bound to a device, so is each connection, and is found only by somebody
// who names that (inet_match in include/net/inet_hashtables.h): a list tells.
func serverEnd(ctx context.Context, d *conns.Diag, c net.Conn) (theirs conns.Conn, there bool, err error) {
	theirs = conns.Conn{Local: addrPort(c.RemoteAddr()), Remote: addrPort(c.LocalAddr()), Cookie: conns.AnyCookie}
	if _, there, err = d.Lookup(ctx, theirs); err == nil && !there {
		theirs, there, err = listed(ctx, d, theirs)
	}
	if err != nil {
		return theirs, false, fmt.Errorf("can't tell whether a connection was accepted: %w", err)
	}
	return theirs, there, nil
}

// listed is the connection between c's addresses, on whichever device. One list may miss
// it, if its handshake ends meanwhile.
func listed(ctx context.Context, d *conns.Diag, c conns.Conn) (conns.Conn, bool, error) {
	for range 2 {
		all, err := d.Dump(ctx, conns.Query{Ports: []uint16{c.Local.Port()}, States: conns.Set(conns.SynRecv, conns.Established, conns.CloseWait)})
		if err != nil {
			return c, false, err
		}
		for _, other := range all {
			if plain(other.Local) == c.Local && plain(other.Remote) == c.Remote {
				return other, true, nil
			}
		}
	}
	return c, false, nil
}

// off tells whether the server's end has left the accept queue: it has got an
// inode, or is gone altogether.
func off(ctx context.Context, d *conns.Diag, c conns.Conn) (bool, error) {
	found, there, err := d.Lookup(ctx, c)
	if err != nil {
		return false, fmt.Errorf("can't tell whether a connection was accepted: %w", err)
	}
	waiting := there && found.Inode == 0 && (found.State == conns.Established || found.State == conns.SynRecv)
	return !waiting, nil
}

func addrPort(a net.Addr) netip.AddrPort { return plain(a.(*net.TCPAddr).AddrPort()) }

func plain(at netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}
