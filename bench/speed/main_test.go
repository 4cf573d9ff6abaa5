// Package speed measures what gapless costs: a reload beyond the daemon's own start,
// the time to settle, requests a second, memory and wake-ups of the holder. All of
// it is compared within one run on one machine, and given as percentiles; nothing
// here fails for being slow, only for not having measured what it says.
//
// The benchmarks own the holders and daemons that they start and end them. The test
// binary is also the shim of services that run within it, and a daemon that starts
// quickly.
package speed

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench/rig"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// built is set once, before any benchmark runs.
var built rig.Binaries

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "__shim":
			spawn.Shim(os.Args[2:])
		case "daemon":
			os.Exit(daemon(os.Args[2:]))
		case "binder":
			os.Exit(binder(os.Args[2:]))
		}
	}
	flag.Parse()
	os.Exit(run(m))
}

// run builds the command if it is going to be measured.
func run(m *testing.M) int {
	if flag.Lookup("test.bench").Value.String() == "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "gapless-speed-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if built, err = rig.Build(ctx, dir, false); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
