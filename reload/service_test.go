package reload

import (
	"encoding/json"
	"fmt"
	"net"
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
	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/state"
)

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
	cfg.HoldTimeout, cfg.Delivery = -1, DeliveryListenFDs // else its listen(2) is answered for it
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

// The records of the last eight that have ended are kept, and those of all that run,
// even if they have failed long ago.
func TestRecordsThatAreKept(t *testing.T) {
	t.Parallel()
	s := &Service{cfg: Config{Name: "web", Log: zerolog.Nop()}, runs: map[int]*generation{2: {number: 2}}}
	for n := 1; n <= 12; n++ {
		s.st.Generations = append(s.st.Generations, state.Generation{Number: n, Phase: state.Gone})
	}
	s.st.Generation(1).Phase, s.st.Generation(2).Phase = state.Draining, state.Failed
	s.entomb(&generation{number: 12})
	var kept []int
	for _, g := range s.st.Generations {
		kept = append(kept, g.Number)
	}
	if diff := cmp.Diff([]int{1, 2, 6, 7, 8, 9, 10, 11, 12}, kept); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
}
