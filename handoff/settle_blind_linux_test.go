package handoff

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// Where connections can't be followed, settling takes as long as it may, and says why.
func TestSettlingBlindly(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	gone := mustOpen(t, ep)
	if err := ep.CloseAll(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		left, err := NewSettler(gone).Wait(t.Context())
		if took := time.Since(began); took != settleMost || left.Took != took || !errors.Is(err, os.ErrClosed) {
			t.Errorf("it took %v (%+v), %v", took, left, err)
		}
	})
}
