package headline

import (
	"testing"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
)

// A daemon that locks its data, and ends at once when it finds them locked, is replaced
// with nobody refused or lost: clients wait.
func TestReplaceLosesNothing(t *testing.T) {
	t.Parallel()
	b := binaries(t)
	s := subject{name: "locks its data", keepAlive: loses,
		run: []string{"--strategy", "replace", "--", b.Daemon, "-style", "plain", "-start", "50ms", "-lock", t.TempDir() + "/lock"}}
	s.underLoadBy(t, b, []bench.Load{
		{Kind: bench.PerRequest, Rate: 200},
		{Kind: bench.Slow, Rate: 20},
		{Kind: bench.Pause, Rate: 20},
	}, rig.Options{})
}
