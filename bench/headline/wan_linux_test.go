package headline

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
	"github.com/gapless-dev/gapless/bench/wan"
)

// Over a wide-area link there are always handshakes under way at the switch. They
// belong to the old generation, and whoever stops it as soon as its queue is empty
// loses a quarter of the clients.
func TestReloadsAcrossAWideAreaLink(t *testing.T) {
	for _, c := range []struct {
		name    string
		options wan.Options
		rate    float64
	}{
		{"50 ms round trip", wan.Options{RTT: 50 * time.Millisecond}, 300},
		{"50 ms round trip and 2 % loss", wan.Options{RTT: 50 * time.Millisecond, Loss: 0.02, Seed: 1}, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			link := openLink(t, c.options)
			b := binaries(t)
			s := subject{name: "plain", address: netip.AddrPortFrom(link.Server().Addr4(), 8080).String()}
			s.run = []string{"--", b.Daemon, "-style", "plain"}
			h := s.hold(t, b, rig.Options{Start: func(cmd *exec.Cmd) error { return link.Server().Start(cmd) }})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			results := during(t, ctx, acrossLink(link, s.address, c.rate), func() { reloadAll(t, ctx, h, reloads) })
			s.judge(t, results)
			notRelayed(t, h)
			stats, err := link.Stats()
			t.Logf("the link: %+v, %v", stats, err)
		})
	}
}

// acrossLink are loads from the other side. A lost SYN is sent again after 1, 3 and
// 7 s, so a request may take long without having failed.
func acrossLink(link *wan.Link, address string, rate float64) []bench.Load {
	dial := func(ctx context.Context) (net.Conn, error) {
		return link.Client().DialContext(ctx, "tcp", address)
	}
	return []bench.Load{
		{Kind: bench.PerRequest, Rate: rate, Dial: dial, Timeout: 30 * time.Second},
		{Kind: bench.Slow, Rate: rate / 10, Dial: dial, Timeout: 30 * time.Second},
		{Kind: bench.Pause, Rate: rate / 10, Dial: dial, Timeout: 30 * time.Second},
	}
}

func openLink(t *testing.T, o wan.Options) *wan.Link {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("GAPLESS_REQUIRE_ALL") != "" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	link, err := wan.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := link.Close(); err != nil {
			t.Error(err)
		}
	})
	return link
}
