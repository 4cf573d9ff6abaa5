package reload

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/state"
)

func TestBackoff(t *testing.T) {
	for n, want := range []time.Duration{
		100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond,
		3200 * time.Millisecond, 6400 * time.Millisecond, 12800 * time.Millisecond, 25600 * time.Millisecond, 30 * time.Second, 30 * time.Second,
	} {
		if got := Backoff(n); got != want {
			t.Errorf("the start after %d waits %s, want %s", n, got, want)
		}
	}
	if got := Backoff(1 << 40); got != 30*time.Second {
		t.Errorf("after very many %s", got)
	}
}

// relay serves the clients that it is given and remembers them.
type relay struct {
	t       *testing.T
	mu      sync.Mutex
	to      []string
	clients int
}

func (r *relay) serve(_ context.Context, to string, clients []handoff.File) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to, r.clients = append(r.to, to), r.clients+len(clients)
	for _, file := range clients {
		f := os.NewFile(uintptr(file.FD), file.Name)
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			r.t.Error(err)
			continue
		}
		c.SetDeadline(time.Now().Add(patience))
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			r.t.Error(err)
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nrelayed")
		c.Close()
	}
	return nil
}

// crashDuringAReload: live has died, and generation 2 waits for dir/go before it is
// ready. Its reload's answer is still to come.
func (f *fixture) crashDuringAReload(dir string) (answer chan error) {
	f.t.Helper()
	pid := f.until("generation 1", live(1)).Live().PID
	write(f.t, dir+"/habits", "until="+dir+"/go")
	answer = make(chan error, 1)
	go func() { _, err := f.reload(); answer <- err }()
	f.until("generation 2 to run", func(s Status) bool { return phase(2, state.Starting)(s) && s.Generation(2).PID != 0 })
	syscall.Kill(pid, syscall.SIGKILL)
	f.until("the crash", f.happened("generation.crashed"))
	return answer
}

// Live dies while a candidate starts, which has listeners of its own: who waits in
// the dead one's is relayed.
func TestCrashDuringAReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := config(t, "habits="+dir+"/habits")
	r := &relay{t: t}
	cfg.Relay = r.serve
	f := start(t, cfg)
	answer := f.crashDuringAReload(dir)
	const clients = 3
	bodies := make(chan string, clients)
	for range clients {
		go func() { body, err := request("http://" + f.Addrs()[0].Addr + "/"); bodies <- fmt.Sprint(body, err) }()
	}
	f.until("clients to wait", func(s Status) bool { return len(s.Queues) == 1 && s.Queues[0].Queue == clients })
	write(t, dir+"/go", "")
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	if st, err := f.glance(t.Context()); err != nil || st.Relayed != clients { // before it has settled
		t.Errorf("%d were relayed at the switch, %v", st.Relayed, err)
	}
	for range clients {
		if got := <-bodies; got != "relayed<nil>" {
			t.Errorf("a client that waited got %s", got)
		}
	}
	st := f.until("generation 1 to go", phase(1, state.Gone))
	if st.Relayed != clients || r.clients != clients || len(r.to) != 1 || r.to[0] != f.Addrs()[0].Addr {
		t.Errorf("%d relayed: %d clients to %v", st.Relayed, r.clients, r.to)
	}
	if len(st.Queues) != 0 || st.Crashes != 0 || st.Generation(1).Exit != "killed by SIGKILL" {
		t.Errorf("after it: %+v, %+v", st.Queues, st.Service)
	}
	if got := f.generation(); got != "2" {
		t.Errorf("answered by %q", got)
	}
}

// Without anybody to relay to, they are told at once.
func TestRelayThatFails(t *testing.T) {
	t.Parallel()
	failing := func(_ context.Context, _ string, clients []handoff.File) error {
		handoff.CloseFiles(clients)
		return errors.New("no worker")
	}
	for report, relay := range map[string]func(context.Context, string, []handoff.File) error{"queue.relay-failed": failing, "queue.relayed": nil} {
		t.Run(report, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cfg := config(t, "habits="+dir+"/habits")
			cfg.Relay = relay
			f := start(t, cfg)
			f.expected = []string{"queue.relay-failed"}
			answer := f.crashDuringAReload(dir)
			client := make(chan error, 1)
			go func() { _, err := request("http://" + f.Addrs()[0].Addr + "/"); client <- err }()
			f.until("a client to wait", func(s Status) bool { return len(s.Queues) == 1 && s.Queues[0].Queue == 1 })
			write(t, dir+"/go", "")
			if err := <-answer; err != nil {
				t.Fatal(err)
			}
			var late net.Error
			if err := <-client; err == nil || errors.As(err, &late) && late.Timeout() {
				t.Errorf("the client got %v", err)
			}
			f.until("the report", f.happened(report))
		})
	}
}

// The next generation gets its listener in the mode that was asked for, whatever the
// one before, whose listener it was, had made of it.
func TestBlockingModeAfterACrash(t *testing.T) {
	t.Parallel()
	for habit, nonBlocking := range map[string]bool{"nonblock": false, "block": true} {
		t.Run(habit, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "modes")
			cfg := config(t, "blocking="+file, habit)
			cfg.NonBlocking = nonBlocking
			f := start(t, cfg)
			inode := f.until("generation 1", live(1)).Live().Listeners[0].Inode
			f.get("/die")
			st := f.until("generation 2", live(2))
			if st.Live().Listeners[0].Inode != inode {
				t.Errorf("the replacement has another listener: %+v", st.Live())
			}
			b, err := os.ReadFile(file)
			want := strings.Repeat(fmt.Sprintf("%t <nil>\n", !nonBlocking), 2)
			if string(b) != want {
				t.Errorf("blocking were %q, %v", b, err)
			}
		})
	}
}

func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy Restart
		path   string
		again  bool
		code   int
	}{
		{RestartNo, "/leave", false, 0},
		{RestartNo, "/die", false, 7},
		{RestartOnFailure, "/leave", false, 0},
		{RestartOnFailure, "/die", true, 0},
		{RestartAlways, "/leave", true, 0},
		{RestartAlways, "/die", true, 0},
	} {
		t.Run(string(c.policy)+c.path, func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			cfg.Restart = c.policy
			f := start(t, cfg)
			f.until("generation 1", live(1))
			f.get(c.path)
			if c.again {
				f.until("generation 2", live(2))
				return
			}
			<-f.done
			if f.code != c.code || f.err != nil {
				t.Errorf("ended with %d, %v", f.code, f.err)
			}
		})
	}
}

// A first generation that fails ends the service, but not one that is to run always.
func TestFirstGenerationIsTriedAgain(t *testing.T) {
	t.Parallel()
	flag := filepath.Join(t.TempDir(), "broken")
	write(t, flag, "")
	cfg := config(t, "exitif="+flag)
	cfg.Restart = RestartAlways
	f := start(t, cfg)
	f.until("two failures", func(s Status) bool { return s.Crashes >= 2 })
	waiting := make(chan string)
	go func() { waiting <- f.generation() }() // whoever comes meanwhile waits
	os.Remove(flag)
	st := f.until("one to be live", func(s Status) bool { return s.Live() != nil })
	if got := <-waiting; got != fmt.Sprint(st.Live().Number) || st.Relayed != 0 {
		t.Errorf("answered by %q, %d relayed", got, st.Relayed)
	}
}

// While a daemon ends again and again, clients wait, then are refused, and are
// served once one starts.
func TestHoldTimeoutDuringACrashLoop(t *testing.T) {
	t.Parallel()
	flag := filepath.Join(t.TempDir(), "broken")
	cfg := config(t, "exitif="+flag)
	cfg.HoldTimeout = 600 * time.Millisecond
	f := start(t, cfg)
	pid := f.until("generation 1", live(1)).Live().PID
	write(t, flag, "")
	syscall.Kill(pid, syscall.SIGKILL)
	f.until("refusal", func(s Status) bool { return s.Refusing })
	if _, err := request("http://" + f.Addrs()[0].Addr + "/"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refusing, but: %v", err)
	}
	if !f.happened("hold.refusing")(Status{}) {
		t.Error("there is no event of it")
	}
	os.Remove(flag)
	st := f.until("one to be live", func(s Status) bool { return s.Live() != nil })
	if got := f.generation(); got != fmt.Sprint(st.Live().Number) || st.Refusing {
		t.Errorf("answered by %q, refusing is %v", got, st.Refusing)
	}
}

func TestHoldsForEver(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.HoldTimeout = -1
	f := start(t, cfg)
	f.until("generation 1", live(1))
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := f.Status(t.Context()); err != nil || st.Refusing {
		t.Errorf("refusing: %+v, %v", st.Service, err)
	}
	answered := make(chan string)
	go func() { answered <- f.generation() }()
	f.until("a client to wait", func(s Status) bool { return len(s.Queues) == 1 && s.Queues[0].Queue == 1 })
	if _, err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-answered; got != "2" {
		t.Errorf("answered by %q", got)
	}
}

// A live daemon that shuts its listener down, under load: the kernel resets who
// waits in it, but from the mending on nobody is refused.
func TestLiveListenerIsMendedUnderLoad(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	pid := f.until("generation 1", live(1)).Live().PID
	for n := 2; n <= 4; n++ {
		f.get("/shutdown")
		f.until("the listener to be mended", func(s Status) bool {
			_, limit, err := f.liveQueue()
			return err == nil && limit > 0 && f.happened("listener.shutdown")(s)
		})
		stop := f.load()
		syscall.Kill(pid, syscall.SIGKILL)
		pid = f.until("the replacement", live(n)).Live().PID
		stop()
	}
	if strings.Contains(f.log.String(), "relisten-failed") {
		t.Error("a listener could not be mended")
	}
}

// A reload that goes live is another version, which has not crashed yet.
func TestReloadEndsTheBackOff(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.until("generation 1", live(1))
	f.get("/die")
	if st := f.until("its replacement", live(2)); st.Crashes != 1 {
		t.Errorf("%d crashes", st.Crashes)
	}
	f.mustReload()
	if st := f.until("generation 3", live(3)); st.Crashes != 0 {
		t.Errorf("%d crashes after a reload", st.Crashes)
	}
}
