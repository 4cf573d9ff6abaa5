// Package headline holds the tests of what gapless promises above all: daemons that
// nobody prepared for it are replaced again and again under load, and no client
// notices. They run the built command from outside.
package headline

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench/rig"
)

// built is set once, before any test runs.
var built rig.Binaries

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gapless-headline-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // an ordinary user runs from here too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if built, err = rig.Build(ctx, dir, false); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func binaries(t *testing.T) rig.Binaries {
	t.Helper()
	return built
}
