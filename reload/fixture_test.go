package reload

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/spawn"
	"github.com/gapless-dev/gapless/reload/state"
)

// fixture is a service that runs until the test ends.
type fixture struct {
	*Service
	t    *testing.T
	code int
	err  error
	done chan struct{}
	// reaper: several of them do each other no harm
	reaper *spawn.Reaper
	out    *lockedBuffer
	log    *lockedBuffer
	// expected reports, beside those that every test may have
	expected []string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func config(t *testing.T, habits ...string) Config {
	t.Helper()
	spec, err := handoff.ParseSpec("http=127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Name: "web", Command: append([]string{os.Args[0], "daemon"}, habits...),
		// Under the race detector a process sleeps a second at its end by default.
		Env: append(os.Environ(), "GORACE=atexit_sleep_ms=0"), Specs: []handoff.Spec{spec}, Shim: []string{"/proc/self/exe", "__shim"},
		ReadyTimeout: 20 * time.Second, StopTimeout: 10 * time.Second,
	}
}

func start(t *testing.T, cfg Config) *fixture {
	t.Helper()
	return startOn(t, cfg, realSystem())
}

func startOn(t *testing.T, cfg Config, sys system) *fixture {
	t.Helper()
	f := &fixture{t: t, done: make(chan struct{}), out: &lockedBuffer{}, log: &lockedBuffer{}}
	cfg.Stdout, cfg.Stderr, cfg.Log = f.out, f.out, zerolog.New(f.log)
	s, err := newService(t.Context(), cfg, sys)
	if err != nil {
		t.Fatal(err)
	}
	f.Service = s
	if f.reaper, err = spawn.NewReaper(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(f.done)
		f.code, f.err = s.Run(context.Background())
	}()
	t.Cleanup(f.end)
	return f
}

// expected are reports of what a daemon did; all others are of what should not be,
// unless a test says so.
var expected = []string{"generation.failed"}

func kindOf(line string) string {
	var e struct {
		Event string `json:"event"`
	}
	json.Unmarshal([]byte(line), &e)
	return e.Event
}

func (f *fixture) end() {
	f.Interrupt()
	f.Interrupt()
	<-f.done
	f.reaper.Close()
	for line := range strings.Lines(f.log.String()) {
		kind := kindOf(line)
		if (strings.HasSuffix(kind, "failed") || kind == "listener.foreign") && !slices.Contains(expected, kind) && !slices.Contains(f.expected, kind) {
			f.t.Errorf("it reported: %s", line)
		}
	}
	if f.t.Failed() {
		f.t.Logf("log:\n%s\noutput:\n%s", f.log, f.out)
	}
}

// get asks the daemon; "" if it could not be had.
func (f *fixture) get(path string) string {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + f.Addrs()[0].Addr + path)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return strings.TrimSpace(string(b))
}

func (f *fixture) generation() string {
	number, _, _ := strings.Cut(f.get("/"), " ")
	return number
}

// until waits for something that the service is on its way to. Connections are not
// counted: that is a look through all of the system's, each time.
func (f *fixture) until(what string, is func(Status) bool) Status {
	f.t.Helper()
	return f.untilIn(f.glance, what, is)
}

// untilCounted is until with connections.
func (f *fixture) untilCounted(what string, is func(Status) bool) Status {
	f.t.Helper()
	return f.untilIn(f.Status, what, is)
}

func (f *fixture) glance(ctx context.Context) (status Status, err error) {
	err = f.ask(ctx, func() {
		status.Service = f.st.Clone()
		status.Measured, status.Queues = f.measureQueues()
	})
	return status, err
}

func (f *fixture) untilIn(status func(context.Context) (Status, error), what string, is func(Status) bool) Status {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	_, events, err := f.Events(ctx, true)
	if err != nil {
		f.t.Fatal(err)
	}
	for {
		st, err := status(ctx)
		if err != nil {
			f.t.Fatalf("waiting for %s: %v", what, err)
		}
		if is(st) {
			return st
		}
		select {
		case <-events:
		case <-time.After(10 * time.Millisecond): // queues change without an event
		case <-ctx.Done():
			f.t.Fatalf("%s did not come: %+v", what, st.Generations)
		}
	}
}

func live(number int) func(Status) bool {
	return func(s Status) bool { return s.Live() != nil && s.Live().Number == number }
}

func phase(number int, p state.Phase) func(Status) bool {
	return func(s Status) bool { g := s.Generation(number); return g != nil && g.Phase == p }
}

// alone: no generation but live has anything left.
func alone(s Status) bool {
	for _, g := range s.Generations {
		if g.Phase != state.Live && g.Phase.Running() {
			return false
		}
	}
	return s.Live() != nil
}

func (f *fixture) reload() (Result, error) {
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	return f.Reload(ctx, ReloadOptions{Reason: "test"})
}

func (f *fixture) mustReload() Result {
	f.t.Helper()
	r, err := f.reload()
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}
