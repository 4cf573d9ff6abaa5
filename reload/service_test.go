package reload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/state"
)

// fixture is a service that runs until the test ends.
type fixture struct {
	*Service
	t    *testing.T
	code int
	err  error
	done chan struct{}
	out  *lockedBuffer
	log  *lockedBuffer
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
	f := &fixture{t: t, done: make(chan struct{}), out: &lockedBuffer{}, log: &lockedBuffer{}}
	cfg.Stdout, cfg.Stderr, cfg.Log = f.out, f.out, zerolog.New(f.log)
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.Service = s
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

func TestReloadReplacesTheGeneration(t *testing.T) {
	t.Parallel()
	for _, kind := range [][]string{nil, {"notify"}, {"notify", "shutdown"}, {"nonblock"}} {
		t.Run(strings.Join(kind, " "), func(t *testing.T) {
			f := start(t, config(t, kind...))
			f.until("generation 1", live(1))
			if got := f.generation(); got != "1" {
				t.Errorf("answered by %q", got)
			}
			for n := 2; n <= 4; n++ {
				if r := f.mustReload(); r.Generation != n || !slices.Contains(r.Draining, n-1) {
					t.Errorf("reload %d: %+v", n, r)
				}
				if got := f.generation(); got != strconv.Itoa(n) {
					t.Errorf("after reload %d answered by %q", n, got)
				}
			}
			st := f.until("generation 3 to go", phase(3, state.Gone))
			if g := st.Generation(3); g.Exit != "exit status 0" || g.Signalled.IsZero() {
				t.Errorf("generation 3 ended as %+v", g)
			}
			if st.Relayed != 0 {
				t.Errorf("%d clients were relayed", st.Relayed)
			}
		})
	}
}

func TestSharedListenersReload(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Shared = true
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.mustReload()
	st := f.until("generation 1 to go", phase(1, state.Gone))
	if got := st.Generation(1).Exit; got != "exit status 0" {
		t.Errorf("generation 1 ended with %s", got)
	}
	if got := f.generation(); got != "2" {
		t.Errorf("answered by %q", got)
	}
}

func TestFailedCandidateLeavesTheOld(t *testing.T) {
	t.Parallel()
	flag := filepath.Join(t.TempDir(), "broken")
	for _, c := range []struct {
		name, habit, want, line string
		code                    int
	}{
		{"exits", "exitif=" + flag, "ended before it was ready: exit status 3", "", CodeNotReady},
	} {
		t.Run(c.name, func(t *testing.T) {
			os.Remove(flag)
			f := start(t, config(t, "say=no such table: users", c.habit))
			f.until("generation 1", live(1))
			os.WriteFile(flag, nil, 0o600)
			_, err := f.reload()
			var failure *Failure
			if !errors.As(err, &failure) || failure.Code != c.code || !strings.Contains(failure.Reason, c.want) {
				t.Fatalf("reload: %v", err)
			}
			if !slices.Contains(failure.Lines, "no such table: users") {
				t.Errorf("its last lines are %q", failure.Lines)
			}
			if got := f.generation(); got != "1" {
				t.Errorf("answered by %q", got)
			}
			f.until("the candidate to go", func(s Status) bool { return phase(2, state.Failed)(s) && len(s.Measured) == 2 })
		})
	}
}

func TestFirstGenerationFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		habits []string
		code   int
	}{
		{[]string{"exit=3"}, 3},
		{[]string{"exit=0"}, CodeNotReady},
	} {
		f := start(t, config(t, c.habits...))
		<-f.done
		if f.code != c.code || f.err == nil {
			t.Errorf("%q: ended with %d, %v", c.habits, f.code, f.err)
		}
	}
	cfg := config(t)
	cfg.Command = []string{"/no/such/daemon"}
	f := start(t, cfg)
	<-f.done
	if f.code != 127 {
		t.Errorf("not found: ended with %d, %v", f.code, f.err)
	}
}

func TestCandidateThatHangs(t *testing.T) {
	t.Parallel()
	for _, mode := range []ready.Mode{ready.Auto, ready.Notify, ready.Accept} {
		t.Run(string(mode), func(t *testing.T) {
			cfg := config(t, "hang")
			cfg.ReadyTimeout, cfg.Ready.Mode = 300*time.Millisecond, mode
			f := start(t, cfg)
			<-f.done
			if f.code != CodeNotReady || !strings.Contains(f.err.Error(), "was not ready within 300ms") {
				t.Errorf("ended with %d, %v", f.code, f.err)
			}
		})
	}
}

func TestClosedListenerIsNotReady(t *testing.T) {
	t.Parallel()
	f := start(t, config(t, "notify", "close3"))
	<-f.done
	if f.err == nil || !strings.Contains(f.err.Error(), "closed its listener") {
		t.Errorf("ended with %d, %v", f.code, f.err)
	}
}

func TestIgnoresSIGTERM(t *testing.T) {
	t.Parallel()
	cfg := config(t, "deaf", "child")
	cfg.StopTimeout, cfg.DrainTimeout = 200*time.Millisecond, 200*time.Millisecond
	f := start(t, cfg)
	first := f.until("generation 1", live(1)).Live().PID
	f.mustReload()
	st := f.until("generation 1 to be killed", phase(1, state.Gone))
	if got := st.Generation(1).Exit; got != "killed by SIGKILL" {
		t.Errorf("it ended as %q", got)
	}
	if members, err := conns.Group(first); err != nil || len(members) > 0 {
		t.Errorf("its process group still has members: %v, %v", members, err)
	}
}

func TestCrashGivesTheListenerOn(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	f.get("/die")
	// The next client waits in the listener until the replacement accepts it.
	if got := f.generation(); got != "2" {
		t.Errorf("answered by %q", got)
	}
	st := f.until("generation 1 to go", phase(1, state.Gone))
	if st.Generation(1).Exit != "exit status 7" || st.Crashes != 1 || st.Relayed != 0 {
		t.Errorf("state after the crash: %+v", st.Service)
	}
}

func TestEndsWithTheDaemonsCode(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Restart = RestartNo
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.get("/die")
	<-f.done
	if f.code != 7 {
		t.Errorf("ended with %d, %v", f.code, f.err)
	}
}

func TestStopHoldsClientsForStart(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	answered := make(chan string)
	go func() { answered <- f.generation() }()
	f.until("a client to wait", func(s Status) bool { return len(s.Queues) == 1 && s.Queues[0].Queue == 1 })
	if r, err := f.Start(t.Context()); err != nil || r.Generation != 2 {
		t.Fatalf("start: %+v, %v", r, err)
	}
	if got := <-answered; got != "2" {
		t.Errorf("the client that waited was answered by %q", got)
	}
}

func TestHoldTimeoutRefuses(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.HoldTimeout = 50 * time.Millisecond
	f := start(t, cfg)
	f.until("generation 1", live(1))
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.until("refusal", func(s Status) bool { return s.Refusing })
	if got := f.get("/"); got != "" {
		t.Errorf("refusing, but answered %q", got)
	}
	if _, err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.generation(); got != "2" {
		t.Errorf("answered by %q", got)
	}
}

func TestShutdownEndsWithZero(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	if err := f.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-f.done
	if f.code != 0 || f.err != nil {
		t.Errorf("ended with %d, %v", f.code, f.err)
	}
}

// While a service ends, what it has is finished and new clients are refused at
// once: a load balancer looks elsewhere then.
func TestShutdownFinishesAndRefuses(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	slow, file := make(chan string), filepath.Join(t.TempDir(), "go")
	go func() { slow <- f.get("/wait" + file) }()
	f.untilCounted("a request in flight", func(s Status) bool { return s.MeasuredOf(*s.Generation(1)).Connections == 1 })
	ended := make(chan error, 1)
	go func() { ended <- f.Shutdown(t.Context()) }()
	f.until("the end to begin", phase(1, state.Draining))
	if _, err := net.Dial("tcp", f.Addrs()[0].Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new client got %v", err)
	}
	os.WriteFile(file, nil, 0o600)
	if got := <-slow; !strings.HasPrefix(got, "1 ") {
		t.Errorf("the request in flight was answered by %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDaemonShutsItsListenerDown(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	pid := f.until("generation 1", live(1)).Live().PID
	f.get("/shutdown")
	f.until("the listener to be mended", func(Status) bool { return strings.Contains(f.log.String(), "listener.shutdown") })
	// A daemon that noticed accepts no more, one that did not goes on; either way a
	// client gets in, and once the daemon has gone its replacement answers.
	c, err := net.Dial("tcp", f.Addrs()[0].Addr)
	if err != nil {
		t.Fatalf("after mending: %v", err)
	}
	c.Close()
	syscall.Kill(pid, syscall.SIGKILL)
	f.until("the replacement", live(2))
	if got := f.generation(); got != "2" {
		t.Errorf("answered by %q", got)
	}
}

func TestBurstOfReloadsConverges(t *testing.T) {
	t.Parallel()
	f := start(t, config(t, "start=300ms"))
	f.until("generation 1", live(1))
	var wg sync.WaitGroup
	results := make([]Result, 50)
	for i := range results {
		wg.Go(func() {
			r, err := f.reload()
			if err != nil {
				t.Error(err)
			}
			results[i] = r
		})
	}
	wg.Wait()
	last := 0
	for _, r := range results {
		last = max(last, r.Generation)
	}
	if last > 4 { // the one that ran, the one that waited, one more for those that came in between
		t.Errorf("50 requests made %d generations", last-1)
	}
	if got := f.generation(); got != strconv.Itoa(last) {
		t.Errorf("answered by %q of %d", got, last)
	}
}

// What a daemon gets is exactly what was promised.
func TestDaemonsDescriptorsAndEnvironment(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "env")
	cfg := config(t, "env="+file)
	second, err := handoff.ParseSpec("admin=127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Specs = append(cfg.Specs, second)
	cfg.Ready = ready.Options{Mode: ready.Probe, Check: ready.Check{Kind: "http", Path: "/"}}
	f := start(t, cfg)
	pid := f.until("generation 1", live(1)).Live().PID
	env, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"LISTEN_FDS=2", fmt.Sprintf("LISTEN_PID=%d", pid), "LISTEN_FDNAMES=http:admin", "GAPLESS_GENERATION=1", "GAPLESS_SERVICE=web", "LISTEN_PIDFDID="} {
		if !strings.Contains("\n"+string(env), "\n"+want) {
			t.Errorf("the environment has no %s", want)
		}
	}
	// 0, 1, 2, two listeners; the daemon's own are its runtime's, and a duplicate.
	for fd, want := range map[int]string{0: "/dev/null", 1: "pipe:", 2: "pipe:", 3: "socket:", 4: "socket:"} {
		if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); !strings.HasPrefix(to, want) {
			t.Errorf("fd %d is %q", fd, to)
		}
	}
}

func TestExecSeesOnlyWhatWasPromised(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Command = []string{"/bin/sh", "-c", "ls -l /proc/$$/fd; exit 5"}
	f := start(t, cfg)
	<-f.done
	var fds []string
	for line := range strings.Lines(f.out.String()) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[len(fields)-2] == "->" {
			fds = append(fds, fields[len(fields)-3])
		}
	}
	if diff := cmp.Diff([]string{"0", "1", "2", "3"}, fds); diff != "" {
		t.Errorf("open in the daemon (-want +got):\n%s%s", diff, f.out)
	}
}

// All that would have to survive the holder is data.
func TestStateIsData(t *testing.T) {
	t.Parallel()
	f := start(t, config(t, "notify"))
	f.until("generation 1", live(1))
	f.mustReload()
	st := f.until("generation 1 to go", phase(1, state.Gone))
	b, err := json.Marshal(st.Service)
	if err != nil {
		t.Fatal(err)
	}
	var back state.Service
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(st.Service, back, cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("what was read back differs:\n%s", diff)
	}
	if !back.Notifies || back.Live().PIDStart == 0 || back.Live().Listeners[0].Inode == 0 {
		t.Errorf("the state lacks something: %s", b)
	}
}

// A daemon sets its own backlog with listen(2); once it has crashed it is the next
// one's clients that wait, and as many as the holder promised may.
func TestCrashRestoresTheListener(t *testing.T) {
	t.Parallel()
	cfg := config(t, "backlog=7", "nonblock")
	cfg.HoldTimeout = -1
	f := start(t, cfg)
	st := f.until("generation 1", live(1))
	if limit := st.MeasuredOf(*st.Generation(1)).QueueLimit; limit != 7 {
		t.Fatalf("the daemon's own backlog is %d", limit)
	}
	f.get("/die")
	st = f.until("the reserve", func(s Status) bool { return len(s.Queues) == 1 || live(2)(s) })
	if len(st.Queues) == 1 && st.Queues[0].QueueLimit <= 7 {
		t.Errorf("%d clients may wait in the reserve", st.Queues[0].QueueLimit)
	}
	f.until("generation 2", live(2))
}
