package reload

import (
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// pausable is a live service that relays.
func pausable(t *testing.T, cfg Config) (*fixture, *relay) {
	t.Helper()
	r := &relay{t: t}
	cfg.Relay = r.serve
	f := start(t, cfg)
	f.until("generation 1", live(1))
	return f, r
}

func (f *fixture) mustPause() {
	f.t.Helper()
	if err := f.Pause(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// clients ask, each on a connection of its own, and are seen to wait.
func (f *fixture) clients(n int) <-chan string {
	f.t.Helper()
	bodies := make(chan string, n)
	for range n {
		go func() { body, err := request("http://" + f.Addrs()[0].Addr + "/"); bodies <- fmt.Sprint(body, err) }()
	}
	f.until("clients to wait", func(s Status) bool { return len(s.Queues) == 1 && s.Queues[0].Queue == n })
	return bodies
}

func (f *fixture) relayed(bodies <-chan string, n int) {
	f.t.Helper()
	for range n {
		if got := <-bodies; got != "relayed<nil>" {
			f.t.Errorf("a client that waited got %s", got)
		}
	}
}

// New connections wait, those that are open go on, and nobody is told to stop.
func TestPause(t *testing.T) {
	t.Parallel()
	f, r := pausable(t, config(t))
	open, generation := f.stream()
	f.mustPause()
	f.mustPause() // changes nothing
	bodies := f.clients(3)
	if st, err := f.Status(t.Context()); err != nil || st.Live().Number != 1 || st.Paused.IsZero() {
		t.Errorf("the state: %+v, %v", st.Service, err)
	}
	waited, err := f.Resume(t.Context())
	if waited != 3 || err != nil {
		t.Errorf("%d waited, %v", waited, err)
	}
	f.relayed(bodies, 3)
	if seen := f.answeredBy(3); seen["1"] != 3 {
		t.Errorf("answered by %v", seen)
	}
	open.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := open.Read(make([]byte, 1)); generation != "1" || err == io.EOF {
		t.Errorf("the open connection: %s, %v", generation, err)
	}
	st := f.until("the end of its listener", func(s Status) bool { return len(s.Queues) == 0 })
	if r.clients != 3 || st.Resumed != 3 || st.Relayed != 0 || !st.Paused.IsZero() || !st.Live().Signalled.IsZero() {
		t.Errorf("%d relayed: %+v", r.clients, st.Service)
	}
	_, err = f.Resume(t.Context())
	refused(t, err, CodeFailed, "is not paused")
}

// A generation that becomes live in a pause gets nothing before its end.
func TestReloadInAPause(t *testing.T) {
	t.Parallel()
	f, _ := pausable(t, config(t))
	f.mustPause()
	bodies := f.clients(2)
	f.mustReload()
	f.until("the end of generation 1", phase(1, state.Gone))
	more := f.clients2(2)
	if st := f.until("all to wait", func(s Status) bool { return len(s.Queues) == 1 && s.Queues[0].Queue == 4 }); st.Live().Number != 2 {
		t.Errorf("the state: %+v", st.Service)
	}
	if waited, err := f.Resume(t.Context()); waited != 4 || err != nil {
		t.Errorf("%d waited, %v", waited, err)
	}
	f.relayed(bodies, 2)
	f.relayed(more, 2)
	if seen := f.answeredBy(3); seen["2"] != 3 {
		t.Errorf("answered by %v", seen)
	}
}

// clients2 are clients that come where others wait already.
func (f *fixture) clients2(n int) <-chan string {
	bodies := make(chan string, n)
	for range n {
		go func() { body, err := request("http://" + f.Addrs()[0].Addr + "/"); bodies <- fmt.Sprint(body, err) }()
	}
	return bodies
}

// The daemon dies in a pause: its replacement waits for the end of it, as everybody;
// and nobody is refused, however short the hold timeout is.
func TestCrashInAPause(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.HoldTimeout = time.Millisecond
	f, _ := pausable(t, cfg)
	f.mustPause()
	bodies := f.clients(2)
	syscall.Kill(f.until("live", live(1)).Live().PID, syscall.SIGKILL)
	st := f.until("its replacement", live(2))
	if len(st.Queues) != 1 || st.Queues[0].Queue != 2 || st.Refusing {
		t.Errorf("who waits: %+v, %+v", st.Queues, st.Service)
	}
	if waited, err := f.Resume(t.Context()); waited != 2 || err != nil {
		t.Errorf("%d waited, %v", waited, err)
	}
	f.relayed(bodies, 2)
	if seen := f.answeredBy(3); seen["2"] != 3 {
		t.Errorf("answered by %v", seen)
	}
}

// Resumed while nobody is live, they wait for the next generation, and are its own.
func TestResumeWhileStopped(t *testing.T) {
	t.Parallel()
	f, r := pausable(t, config(t))
	f.mustPause()
	answered := f.clients(1)
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if waited, err := f.Resume(t.Context()); waited != 0 || err != nil {
		t.Errorf("%d waited, %v", waited, err)
	}
	if _, err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-answered; got[:2] != "2 " || r.clients != 0 {
		t.Errorf("got %s, %d relayed", got, r.clients)
	}
}

// The hold timeout counts from the end of the pause.
func TestHoldTimeoutAfterAPause(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.HoldTimeout = time.Millisecond
	f, _ := pausable(t, cfg)
	f.mustPause()
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Resume(t.Context())
	f.until("refusal", func(s Status) bool { return s.Refusing })
}

// Whoever was refused may wait again.
func TestPauseEndsRefusal(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.HoldTimeout = time.Millisecond
	f, _ := pausable(t, cfg)
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.until("refusal", func(s Status) bool { return s.Refusing })
	f.mustPause()
	bodies := f.clients(1)
	if _, err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Resume(t.Context())
	f.relayed(bodies, 1)
}

// A canary has no share in a pause, and its share again after it.
func TestCanaryInAPause(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	r := &relay{t: t}
	cfg.Relay = r.serve
	f, answers := withCanary(t, cfg, CanaryOptions{Share: 1})
	f.mustPause()
	bodies := f.clients(1)
	f.Resume(t.Context())
	f.relayed(bodies, 1)
	if seen := f.answeredBy(3); seen["2"] != 3 {
		t.Errorf("answered by %v", seen)
	}
	f.Promote(t.Context())
	<-answers
}
