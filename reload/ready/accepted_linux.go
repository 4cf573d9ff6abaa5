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
	theirs := conns.Conn{Local: addrPort(c.RemoteAddr()), Remote: addrPort(c.LocalAddr()), Cookie: conns.AnyCookie}
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

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
