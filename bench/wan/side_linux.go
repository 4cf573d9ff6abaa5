package wan

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"

	"github.com/gapless-dev/gapless/bench/netns"
)

// Side is one end of a [Link]: a network namespace with a loopback device and the wire, nothing else. Its methods may be
// called from any goroutine; after [Link.Close] they fail with os.ErrClosed. They need the privileges that [Open] needed.
type Side struct {
	end *end
}

// end is what a Side stands for; the Link owns it.
type end struct {
	ns           *netns.Namespace
	tun          *os.File
	addr4, addr6 netip.Addr
}

// Addr4 is the side's IPv4 address on the wire.
func (s Side) Addr4() netip.Addr { return s.end.addr4 }

// Addr6 is the side's IPv6 address on the wire.
func (s Side) Addr6() netip.Addr { return s.end.addr6 }

// Do runs f in the calling goroutine, on a thread inside the side's namespace, and returns f's error. Sockets that f itself
// makes live in that namespace for good and may be used anywhere; goroutines that f starts are outside, and so is what
// happens in /proc/self/net and /sys (use /proc/thread-self/net; /proc/sys/net is the side's). Do holds its thread as long
// as f runs: for many sockets at once use [Side.DialContext].
//
// In the rare case that the thread can't return to its namespace, the error says so and the goroutine stays locked to it:
// it should then end.
func (s Side) Do(f func() error) error {
	return s.end.ns.Do(f)
}

// DialContext connects from this side, like [net.Dialer.DialContext]: the address must be a literal IP address and port
// ("10.77.0.2:80"), since names would be looked up outside the namespace. The caller closes the connection.
func (s Side) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return s.end.ns.DialContext(ctx, network, address)
}

// Listen listens on this side with plain TCP, never MPTCP. The caller closes the listener.
func (s Side) Listen(ctx context.Context, network, address string) (ln net.Listener, err error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	err = s.Do(func() error {
		ln, err = lc.Listen(ctx, network, address)
		return err
	})
	return ln, err
}

// Start is cmd.Start for a child whose network is this side; the caller waits for it. The child's /sys still shows the
// devices of the namespace that this process lives in. Pdeathsig is sent when the thread that forked ends, not the
// process: threads of the Go runtime rarely do, but a goroutine that ends while locked takes its thread along.
func (s Side) Start(cmd *exec.Cmd) error {
	return s.Do(cmd.Start)
}
