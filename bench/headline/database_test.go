package headline

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
)

// database is one of which only one may run, as it owns its files; it binds its
// address by itself and knows nothing of gapless. Each request is a connection of its
// own that writes one number and has that acknowledged.
type database struct {
	subject
	// write says who answered, by a word that each generation has another of.
	write func(conn net.Conn, n int) (who string, err error)
	read  func(conn net.Conn) ([]int, error)
}

// databaseTimeout is for a client that waits while the old one ends and the new one
// begins, on a busy machine.
const databaseTimeout = 30 * time.Second

// losesNothing replaces the database under load: no client is refused or fails, and
// what was acknowledged is there, once, whoever did it. A client's session is several
// questions and answers, and between two of them nothing is under way that a database's
// own stop would wait for: hence --drain connections.
func (d database) losesNothing(t *testing.T) {
	ctx, h := t.Context(), d.hold(t, binaries(t), rig.Options{Args: []string{"--drain", "connections"}})
	acknowledged := newLedger()
	speak := func(conn net.Conn) (string, error) { return acknowledged.write(conn, d.write) }
	results := during(t, ctx, addressed(t, ctx, h,
		bench.Load{Kind: bench.PerRequest, Rate: 25, Timeout: databaseTimeout, Speak: speak},
		bench.Load{Kind: bench.Pause, Rate: 5, Timeout: databaseTimeout, Speak: speak},
	), func() { reloadAll(t, ctx, h, reloads) })
	d.judge(t, results)
	d.relayedInTime(t, h)
	d.intact(t, h, acknowledged)
}

// relayedInTime: those who wait are, as it listens before it is ready; but it ends by itself.
func (d database) relayedInTime(t *testing.T, h *rig.Holder) {
	t.Helper()
	st, err := h.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d clients waited and were relayed", st.Relayed)
	for _, g := range st.Generations {
		if g.State == "failed" || strings.Contains(g.Exit, "SIGKILL") {
			t.Errorf("generation %d: %s %s", g.Number, g.State, g.Exit)
		}
	}
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(databaseTimeout))
	return conn
}

// intact compares what the last generation has with what was acknowledged by all.
func (d database) intact(t *testing.T, h *rig.Holder, l *ledger) {
	t.Helper()
	st, err := h.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found, err := d.read(dial(t, st.Addr("http")))
	if err != nil {
		t.Fatalf("can't read what was written: %v", err)
	}
	slices.Sort(found)
	if want := slices.Sorted(maps.Keys(l.numbers)); len(want) == 0 || !slices.Equal(found, want) {
		t.Errorf("%d writes were acknowledged, %d are there: %v, want %v", len(want), len(found), found, want)
	}
}

// ledger is what clients were told to be written.
type ledger struct {
	mu      sync.Mutex
	begun   int
	numbers map[int]bool
	known   map[string]int // generations by their word, in the order of their first answers
}

func newLedger() *ledger { return &ledger{numbers: map[int]bool{}, known: map[string]int{}} }

// write a number that nobody else writes, and note it if that was acknowledged.
func (l *ledger) write(conn net.Conn, write func(net.Conn, int) (string, error)) (string, error) {
	l.mu.Lock()
	l.begun++
	n := l.begun
	l.mu.Unlock()
	who, err := write(conn, n)
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.numbers[n] = true
	if l.known[who] == 0 { // only one runs at a time, so they come in their order
		l.known[who] = len(l.known) + 1
	}
	return strconv.Itoa(l.known[who]), nil
}
