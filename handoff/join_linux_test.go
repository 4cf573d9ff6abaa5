package handoff

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// bound is a daemon's own socket, as it is when the daemon asks to listen.
func bound(t *testing.T, family int, key Key) int {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	for _, failed := range append(key.set(fd), err, unix.Bind(fd, sockaddr(key.Addr))) {
		if failed != nil {
			t.Fatal(failed)
		}
	}
	return fd
}

func atPort(text string, port uint16) Key {
	return Key{Addr: netip.AddrPortFrom(netip.MustParseAddr(text), port)}
}

// A daemon's own socket is steered to like ours, whichever came first.
func TestOwnSocketJoins(t *testing.T) {
	for _, first := range []bool{true, false} {
		for _, tc := range []struct {
			family int
			key    Key
			to     string
		}{
			{unix.AF_INET, atPort("127.0.0.1", 0), "127.0.0.1"},
			{unix.AF_INET6, atPort("::ffff:127.0.0.1", 0), "127.0.0.1"},
			{unix.AF_INET6, atPort("::", 0), "127.0.0.1"},
			{unix.AF_INET6, Key{Addr: netip.MustParseAddrPort("[::]:0"), V6Only: true}, "::1"},
			{unix.AF_INET, Key{Addr: netip.MustParseAddrPort("0.0.0.0:0"), Device: 1}, "127.0.0.1"},
		} {
			t.Run(fmt.Sprintf("%s %v first %v", tc.key.Addr, tc.key.V6Only, first), func(t *testing.T) {
				checkJoin(t, tc.family, tc.key, tc.to, first)
			})
		}
	}
}

func checkJoin(t *testing.T, family int, key Key, to string, first bool) {
	probe := bound(t, family, key)
	at, err := boundTo(probe)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(probe)
	key.Addr = netip.AddrPortFrom(key.Addr.Addr(), at.Port())
	ep := OpenAt(Spec{Network: TCP}, key, OpenOptions{})
	t.Cleanup(func() {
		if err := ep.CloseAll(); err != nil {
			t.Error(err)
		}
	})
	join := func() *Listener {
		l, err := ep.Join(bound(t, family, key))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	var all []*Listener
	if first {
		all = []*Listener{join(), mustOpen(t, ep), join()}
	} else {
		all = []*Listener{mustOpen(t, ep), join(), join()}
	}
	target := netip.AddrPortFrom(netip.MustParseAddr(to), at.Port())
	for i, live := range []*Listener{all[0], all[1], all[2], all[0]} {
		if err := ep.Steer(Plan{Live: []*Listener{live}}); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			c := connectTo(t, target)
			if n, _, err := live.Queue(); err != nil || n != 1 {
				t.Fatalf("%d: %d wait in the live one, %v", i, n, err)
			}
			fd, _, err := live.Accept()
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
			unix.Close(c)
		}
	}
}

func connectTo(t *testing.T, at netip.AddrPort) int {
	t.Helper()
	fd, err := unix.Socket(family(at.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(fd, sockaddr(at))
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
