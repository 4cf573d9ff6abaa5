package handoff

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProbeIsKnownWhenAccepted(t *testing.T) {
	for _, text := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "0"} {
		t.Run(text, func(t *testing.T) {
			ep := openEndpoint(t, spec(t, text))
			l := mustOpen(t, ep)
			to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ep.Addr().Port())
			if text == "[::1]:0" {
				to = ep.Addr()
			}
			for _, probe := range []bool{true, false} {
				var c net.Conn
				var err error
				if probe {
					c, err = Dial(t.Context(), ep.Addr())
				} else {
					c, err = net.Dial("tcp", to.String())
				}
				if err != nil {
					t.Fatal(err)
				}
				fd, ok, err := l.Accept()
				if err != nil || !ok {
					t.Fatalf("not accepted: %v", err)
				}
				if got := IsProbe(fd); got != probe {
					t.Errorf("is a probe: %v, want %v", got, probe)
				}
				unix.Close(fd)
				c.Close()
			}
			if c, err := Dial(t.Context(), to); err != nil { // IPv4 at a dual-stack wildcard
				t.Error(err)
			} else {
				c.Close()
				fd, _, err := l.Accept()
				if err != nil || !IsProbe(fd) {
					t.Errorf("a probe by IPv4 is not known: %v", err)
				}
				unix.Close(fd)
			}
		})
	}
}
