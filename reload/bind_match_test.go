package reload

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
)

// key of "[::]:80 only dev2": a test's short form.
func key(t *testing.T, text string) handoff.Key {
	t.Helper()
	var addr string
	k := handoff.Key{}
	switch n, _ := fmt.Sscanf(text, "%s only", &addr); {
	case n == 0:
		t.Fatalf("no key: %q", text)
	case text == addr+" only":
		k.V6Only = true
	case text != addr:
		if _, err := fmt.Sscanf(text, "%s dev%d", &addr, &k.Device); err != nil {
			t.Fatalf("no key: %q", text)
		}
	}
	k.Addr = netip.MustParseAddrPort(addr)
	return k
}

func family(k handoff.Key) int {
	if k.Addr.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func TestMeeting(t *testing.T) {
	for _, c := range []struct{ named, daemon, want string }{
		{"[::]:80", "[::]:80", "[::]:80"},
		{"[::]:80", "[::]:80 only", "[::]:80 only"},
		{"[::]:80", "0.0.0.0:80", "0.0.0.0:80"},
		{"[::]:80", "127.0.0.1:80", "127.0.0.1:80"},
		{"[::]:80", "[::1]:80", "[::1]:80 only"},
		{"[::]:80", "[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80"},
		{"[::]:80", "[::ffff:0.0.0.0]:80", "[::ffff:0.0.0.0]:80"},
		{"[::]:80 only", "[::]:80", "[::]:80 only"},
		{"[::]:80 only", "0.0.0.0:80", ""},
		{"[::]:80 only", "[::ffff:127.0.0.1]:80", ""},
		{"0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80"},
		{"0.0.0.0:80", "[::]:80 only", ""},
		{"0.0.0.0:80", "10.0.0.1:80", "10.0.0.1:80"},
		{"127.0.0.1:80", "0.0.0.0:80", "127.0.0.1:80"},
		{"127.0.0.1:80", "[::]:80", "[::ffff:127.0.0.1]:80"},
		{"127.0.0.1:80", "[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80"},
		{"127.0.0.1:80", "10.0.0.1:80", ""},
		{"127.0.0.1:80", "[::1]:80", ""},
		{"[::1]:80", "[::]:80", "[::1]:80 only"},
		{"[::1]:80", "0.0.0.0:80", ""},
		{"[::]:80", "[::]:81", ""},
		{"[::]:80", "[::]:80 dev2", "[::]:80 dev2"},
		{"[::]:80 dev2", "[::]:80 dev2", "[::]:80 dev2"},
		{"[::]:80 dev2", "[::]:80", ""},
		{"[::]:80 dev2", "[::]:80 dev3", ""},
	} {
		daemon := key(t, c.daemon)
		got, ok := meeting(key(t, c.named), daemon, family(daemon))
		switch {
		case ok != (c.want != ""):
			t.Errorf("%s and %s meet: %t, at %+v", c.named, c.daemon, ok, got)
		case ok && !got.Same(key(t, c.want)):
			t.Errorf("%s and %s meet at %+v, want %s", c.named, c.daemon, got, c.want)
		}
	}
}

// reached tells whether a connection to addr comes to a socket of the key: as ip(7) and
// ipv6(7) say it, and by nothing of what is tested.
func reached(k handoff.Key, addr netip.Addr) bool {
	a := k.Addr.Addr()
	switch {
	case a == netip.IPv6Unspecified():
		return addr.Is6() || !k.V6Only
	case a.Is4() || a.Is4In6():
		return addr.Is4() && (a.Unmap() == netip.IPv4Unspecified() || a.Unmap() == addr)
	}
	return a == addr
}

// A socket where both meet is reached at no more addresses than either, and at no fewer,
// and it can be bound by a socket of the daemon's family.
func TestMeetingIsWhereBothAre(t *testing.T) {
	var keys []handoff.Key
	for _, text := range []string{"0.0.0.0", "127.0.0.1", "10.0.0.1", "::", "::1", "fd00::1", "::ffff:0.0.0.0", "::ffff:127.0.0.1", "::ffff:10.0.0.1"} {
		for _, only := range []bool{false, true} {
			a := netip.MustParseAddr(text)
			if only && (a.Is4() || a.Is4In6()) {
				continue // EINVAL, or none at all
			}
			keys = append(keys, handoff.Key{Addr: netip.AddrPortFrom(a, 80), V6Only: only})
		}
	}
	clients := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("::1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")}
	for _, named := range keys {
		for _, daemon := range keys {
			got, ok := meeting(named, daemon, family(daemon))
			if ok && family(got) != family(daemon) {
				t.Errorf("%+v and %+v meet at %+v, of another family", named, daemon, got)
			}
			for _, c := range clients {
				if want := reached(named, c) && reached(daemon, c); (ok && reached(got, c)) != want {
					t.Errorf("%+v and %+v meet at %+v, %t: %s comes: %t", named, daemon, got, ok, c, want)
				}
			}
		}
	}
}

func TestPlaceOf(t *testing.T) {
	ep := func(text string, found bool) *endpoint {
		k := key(t, text)
		return &endpoint{Endpoint: handoff.OpenAt(specOf(k), k, handoff.OpenOptions{}), named: k, found: found, spec: specOf(k)}
	}
	named := Config{Specs: make([]handoff.Spec, 1)}
	closed := ep("0.0.0.0:80", true)
	closed.closed = true
	for _, c := range []struct {
		name   string
		cfg    Config
		eps    []*endpoint
		daemon string
		want   int // -1 is to be found, -2 none of the service's
	}{
		{"no address is named", Config{}, nil, "0.0.0.0:80", -1},
		{"found before", Config{}, []*endpoint{ep("[::]:80", true), ep("0.0.0.0:80", true)}, "0.0.0.0:80", 1},
		{"found before, of another key", Config{}, []*endpoint{ep("[::]:80", true)}, "0.0.0.0:80", -1},
		{"found before, and closed", Config{}, []*endpoint{closed}, "0.0.0.0:80", -1},
		{"another port than named", named, []*endpoint{ep("[::]:80", false)}, "0.0.0.0:81", -2},
		{"the named one", named, []*endpoint{ep("[::]:81", false), ep("[::]:80", false)}, "0.0.0.0:80", 1},
		{"the closest of two", named, []*endpoint{ep("[::]:80", false), ep("127.0.0.1:80", false)}, "127.0.0.1:80", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Service{cfg: c.cfg, eps: c.eps}
			g := &generation{binding: newBinding()}
			daemon := key(t, c.daemon)
			p, ok := s.placeOf(g, daemon, family(daemon))
			switch {
			case !ok && c.want == -2:
			case !ok || p.i != c.want || !p.key.Same(daemon):
				t.Errorf("it is at %d, %+v, %t; want %d", p.i, p.key, ok, c.want)
			}
		})
	}
}
