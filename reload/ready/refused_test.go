package ready

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWaitRemembersRefusal: the check that was cut off by the deadline says less
// than the one before it, which was answered.
func TestWaitRemembersRefusal(t *testing.T) {
	refused := filepath.Join(t.TempDir(), "refused")
	again := refused + "-again"
	o := Options{Interval: time.Millisecond, Timeout: time.Minute, Check: Check{Kind: "exec",
		Command: fmt.Sprintf("if test -e %[1]s; then touch %[2]s; exec sleep 60; fi; echo no schema; touch %[1]s; exit 1", refused, again)}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer cancel()
		for t.Context().Err() == nil {
			if _, err := os.Stat(again); err == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	err := o.Wait(ctx, Target{Env: os.Environ()})
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "no schema") {
		t.Errorf("%v", err)
	}
}
