package headline

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench/rig"
)

// What becomes of a session with an open transaction. PostgreSQL has said READY=1, so
// --drain auto takes it for one that knows its stop signal, and a fast shutdown ends the
// session with a message; with --drain connections new clients wait until it is over.
func TestPostgreSQLSessions(t *testing.T) {
	for _, c := range []struct {
		drain  string
		finish func(*testing.T, *postgres)
		rows   []int
	}{
		{"auto", isTerminated, nil},
		{"connections", commits, []int{1}},
	} {
		t.Run(c.drain, func(t *testing.T) {
			t.Parallel()
			d := postgresOf(t)
			h := d.hold(t, binaries(t), rig.Options{Args: []string{"--drain", c.drain}})
			session := begin(t, d.address)
			reloaded := make(chan error, 1)
			go func() { reloaded <- h.Reload(t.Context()) }()
			untilItIsReplaced(t, h)
			c.finish(t, session)
			if err := <-reloaded; err != nil {
				t.Fatal(err)
			}
			rows, err := postgresRead(dial(t, d.address))
			if err != nil || !slices.Equal(rows, c.rows) {
				t.Errorf("%v are there, want %v; %v", rows, c.rows, err)
			}
		})
	}
}

func begin(t *testing.T, addr string) *postgres {
	t.Helper()
	p, err := postgresHello(dial(t, addr))
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{"begin", "insert into written values (1)"} {
		if _, err := p.query(query); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func untilItIsReplaced(t *testing.T, h *rig.Holder) {
	t.Helper()
	for end := time.Now().Add(databaseTimeout); ; time.Sleep(5 * time.Millisecond) { // between two looks
		st, err := h.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(st.Generations) > 1 { // that the next one is there is enough: it may be live already
			return
		}
		if time.Now().After(end) {
			t.Fatal("the reload did not begin")
		}
	}
}

// isTerminated: by SQLSTATE 57P01, admin_shutdown.
func isTerminated(t *testing.T, p *postgres) {
	t.Helper()
	_, err := p.untilReady()
	if err == nil || !strings.Contains(fmt.Sprint(err), "57P01") {
		t.Errorf("the session heard %v", err)
	}
}

func commits(t *testing.T, p *postgres) {
	t.Helper()
	if _, err := p.query("commit"); err != nil {
		t.Error(err)
	}
	if err := p.bye(); err != nil {
		t.Error(err)
	}
}
