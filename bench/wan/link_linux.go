package wan

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/bench/netns"
)

// Link is the wire with its two sides. All methods may be called from any goroutine.
type Link struct {
	wire               wire
	client, server     *end
	toServer, toClient *direction
	close              func() error // once
}

// Open makes the namespaces, the devices and the relay between them, and returns when packets can flow. The caller closes the
// link. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN, /dev/net/tun and a writable /proc/sys; the error says what is missing.
func Open(o Options) (*Link, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	client, err := newEnd("10.77.0.1/24", "fd77::1/64")
	if err != nil {
		return nil, fmt.Errorf("can't open the client's side of the link: %w", err)
	}
	server, err := newEnd("10.77.0.2/24", "fd77::2/64")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("can't open the server's side of the link: %w", err), client.close())
	}
	l := &Link{client: client, server: server}
	l.SetRTT(o.RTT)
	l.SetLoss(o.Loss)
	l.toServer = newDirection(&l.wire, client.tun, server.tun, o.Seed, 1)
	l.toClient = newDirection(&l.wire, server.tun, client.tun, o.Seed, 2)
	l.toServer.start()
	l.toClient.start()
	l.close = sync.OnceValue(l.shut)
	return l, nil
}

// Close stops the relay, waits for it and removes devices and namespaces; what is on the wire is lost. It returns what had made
// the relay fail while it ran, if anything had: the link was dead since. Later calls return the same.
func (l *Link) Close() error { return l.close() }

func (l *Link) shut() error {
	// The devices first: only that wakes the relay's readers.
	err := errors.Join(l.client.close(), l.server.close())
	for _, d := range []*direction{l.toServer, l.toClient} {
		if failed := d.wait(); failed != nil {
			err = errors.Join(err, fmt.Errorf("can't carry packets: %w", failed))
		}
	}
	return err
}

// Client is the side that dials.
func (l *Link) Client() Side { return Side{l.client} }

// Server is the side that listens. The two differ in nothing but their addresses.
func (l *Link) Server() Side { return Side{l.server} }

// SetRTT changes the round-trip time for packets that are not on the wire yet. They do not overtake those that are.
func (l *Link) SetRTT(rtt time.Duration) { l.wire.setRTT(max(rtt, 0)) }

// SetLoss changes the share of packets lost from now on, 0 to 1.
func (l *Link) SetLoss(share float64) { l.wire.setLoss(share) }

// Stats counts what the wire has carried. The error is about the kernel's own counters, for which a closed link can't be asked.
func (l *Link) Stats() (Stats, error) {
	s := Stats{ToServer: l.toServer.flow(), ToClient: l.toClient.flow()}
	fromClient, err1 := l.client.overrun()
	fromServer, err2 := l.server.overrun()
	s.ToServer.Overrun += fromClient
	s.ToClient.Overrun += fromServer
	return s, errors.Join(err1, err2)
}

// newEnd makes one side; the caller closes it.
func newEnd(prefix4, prefix6 string) (*end, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	e := &end{ns: ns}
	prefixes := []netip.Prefix{netip.MustParsePrefix(prefix4), netip.MustParsePrefix(prefix6)}
	e.addr4, e.addr6 = prefixes[0].Addr(), prefixes[1].Addr()
	if err := ns.Do(func() error { return e.furnish(prefixes) }); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// furnish fills the empty namespace of the calling thread.
func (e *end) furnish(prefixes []netip.Prefix) (err error) {
	if e.tun, err = openTUN(); err != nil {
		return err
	}
	if err := tune(); err != nil {
		return err
	}
	device, err := net.InterfaceByName(deviceName)
	if err != nil {
		return fmt.Errorf("can't find TUN device %s: %w", deviceName, err)
	}
	return bringUp(device.Index, prefixes)
}

// bringUp starts the loopback device, which brings its own addresses, and the wire's.
func bringUp(index int, prefixes []netip.Prefix) error {
	r, err := openRtnetlink()
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.up(loopbackIndex); err != nil {
		return err
	}
	if err := r.up(index, attribute32(unix.IFLA_MTU, mtu), attribute32(unix.IFLA_TXQLEN, deviceQueue)); err != nil {
		return err
	}
	for _, p := range prefixes {
		if err := r.address(index, p); err != nil {
			return err
		}
	}
	for _, p := range prefixes {
		if err := r.reachable(p.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// tune sets what a load of thousands of connections a second needs. The kernel finds /proc/sys/net by the calling thread.
func tune() error {
	settings := [][2]string{
		// No link-local address and thus no router solicitations: only the traffic of the test is on the wire.
		{"ipv6/conf/" + deviceName + "/addr_gen_mode", "1"},
		{"ipv4/ip_local_port_range", "1024 65535"},
		// A client's port is free again a second after its connection, not a minute.
		{"ipv4/tcp_tw_reuse", "1"},
		// A connection does not start with what an earlier one learned of the wire: runs stay comparable.
		{"ipv4/tcp_no_metrics_save", "1"},
	}
	for _, s := range settings {
		if err := os.WriteFile("/proc/sys/net/"+s[0], []byte(s[1]), 0); err != nil {
			return fmt.Errorf("can't set net.%s to %s: %w", strings.ReplaceAll(s[0], "/", "."), s[1], err)
		}
	}
	return nil
}

func (e *end) close() error {
	var err error
	if e.tun != nil {
		err = e.tun.Close()
	}
	return errors.Join(err, e.ns.Close())
}

// overrun asks the kernel how many packets the device has dropped because the relay did not read fast enough.
func (e *end) overrun() (dropped uint64, err error) {
	err = e.ns.Do(func() error {
		table, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return fmt.Errorf("can't count dropped packets: %w", err)
		}
		dropped, err = transmitDrops(table, deviceName)
		return err
	})
	return dropped, err
}

// transmitDrops finds the twelfth column of a device's line in /proc/net/dev: eight for receiving come first, then
// bytes, packets, errors, drops.
func transmitDrops(table []byte, device string) (uint64, error) {
	lines := bufio.NewScanner(bytes.NewReader(table))
	for lines.Scan() {
		name, columns, _ := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(columns)
		if strings.TrimSpace(name) == device && len(fields) > 11 {
			return strconv.ParseUint(fields[11], 10, 64)
		}
	}
	return 0, fmt.Errorf("can't find network device %s in /proc/net/dev", device)
}
