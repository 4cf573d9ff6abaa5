package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// What follows tries on sockets of its own, on the loopback interface, what this package
// needs of a kernel. Nothing of it is left behind. Any goroutine may call it.

// trialConns are dialled to each listener: enough that a hash over two would hardly
// ever agree with the program (one in 256).
const trialConns = 8

// TrySteering opens an endpoint of two listeners on a free port of the network's loopback
// address, and connects: what is dialled must come to the one that the program names, and
// a probe to the other. The error wraps [errors.ErrUnsupported] where generations share
// their listeners, and unix.EAFNOSUPPORT or EADDRNOTAVAIL where there is no such address.
func TrySteering(ctx context.Context, n Network) error {
	if err := trySteering(ctx, n); err != nil {
		return fmt.Errorf("can't steer %s connections: %w", n, err)
	}
	return nil
}

func trySteering(ctx context.Context, n Network) error {
	host := "127.0.0.1"
	if n == TCP6 {
		host = "::1"
	}
	ep, err := Open(ctx, Spec{Network: n, Host: host}, OpenOptions{})
	if err != nil {
		return err
	}
	defer ep.CloseAll()
	if ep.Steering() == "shared" {
		return fmt.Errorf("this system has no program that could choose a listener: %w", errors.ErrUnsupported)
	}
	one, err := ep.Open()
	if err != nil {
		return err
	}
	two, err := ep.Open()
	if err != nil {
		return err
	}
	// To the first by the plan that is in force from the start, then to the second, which
	// is no place that an index out of range, or none, could mean by chance.
	if err := comesTo(ctx, ep, Plan{Live: []*Listener{one}, Probe: []*Listener{two}}); err != nil {
		return err
	}
	return comesTo(ctx, ep, Plan{Live: []*Listener{two}, Probe: []*Listener{one}})
}

// TrySharing is for where nothing can be steered: two listeners that are one socket, and
// connections come to it.
func TrySharing(ctx context.Context) error {
	ep, err := Open(ctx, Spec{Network: TCP4, Host: "127.0.0.1"}, OpenOptions{Shared: true})
	if err != nil {
		return fmt.Errorf("can't share a listener: %w", err)
	}
	defer ep.CloseAll()
	for range 2 {
		l, err := ep.Open()
		if err == nil {
			var c net.Conn
			c, err = (&net.Dialer{}).DialContext(ctx, "tcp", ep.Addr().String())
			err = arrives(l, c, err)
		}
		if err != nil {
			return fmt.Errorf("can't share a listener: %w", err)
		}
	}
	return nil
}

func comesTo(ctx context.Context, ep *Endpoint, p Plan) error {
	if err := ep.Steer(p); err != nil {
		return err
	}
	plain := net.Dialer{}
	plain.SetMultipathTCP(false)
	for range trialConns {
		c, err := plain.DialContext(ctx, "tcp", ep.Addr().String())
		if err := arrives(p.Live[0], c, err); err != nil {
			return err
		}
		c, err = Dial(ctx, ep.Addr())
		if err := arrives(p.Probe[0], c, err); err != nil {
			return fmt.Errorf("of a probe: %w", err)
		}
	}
	return nil
}

// arrives: a connection is in its queue when connect(2) returns, on loopback. The client's
// side is reset, so that it leaves no TIME_WAIT.
func arrives(at *Listener, c net.Conn, err error) error {
	if err != nil {
		return err
	}
	defer c.Close()
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	fd, ok, err := at.Accept()
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("it came to another listener than the program names")
	}
	return unix.Close(fd)
}

// Sysctl is what [Sysctls] finds.
type Sysctl struct{ Somaxconn, MigrateReq, Syncookies int }
