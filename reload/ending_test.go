package reload

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/state"
)

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
