package reload

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/gapless-dev/gapless/handoff"
)

// Where connections can't be followed, the stop signal waits for as long as they may
// take, and somebody is told why.
func TestSettlingBlindly(t *testing.T) {
	spec, err := handoff.ParseSpec("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ep, err := handoff.Open(t.Context(), spec, handoff.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	gone, err := ep.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := ep.CloseAll(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := &Service{cfg: Config{Name: "web", Log: zerolog.Nop()}, inbox: make(chan func()), ended: make(chan struct{})}
		began := time.Now()
		var took time.Duration
		s.settle(t.Context(), 1, []*handoff.Listener{gone}, func(handoff.Settled) { took = time.Since(began) })
		posts := 0
		for ; took == 0; posts++ {
			(<-s.inbox)()
		}
		if took != handoff.SettleMost || posts != 2 {
			t.Errorf("it took %v and %d words to the owner", took, posts)
		}
	})
}
