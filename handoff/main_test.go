package handoff

import (
	"os"
	"testing"

	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// TestMain fails the run if a test leaves a goroutine or a descriptor behind.
func TestMain(m *testing.M) { os.Exit(leaktest.Run(m, 0)) }
