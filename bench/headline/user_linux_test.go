package headline

import (
	"os"
	"syscall"
	"testing"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
)

// Nothing of it needs a privilege.
func TestReloadsAsAnOrdinaryUser(t *testing.T) {
	b := binaries(t)
	s := subject{name: "plain", run: []string{"--", b.Daemon, "-style", "plain"}, keepAlive: loses}
	if os.Geteuid() != 0 {
		t.Skip("all tests are run by an ordinary user already")
	}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	s.underLoadBy(t, b, []bench.Load{{Kind: bench.PerRequest, Rate: 300}, {Kind: bench.Slow, Rate: 30}}, rig.Options{Credential: nobody})
}
