package reload

import (
	"sync"
	"syscall"
	"testing"
	"time"
)

// Whoever waits in the queue of one that dies in its probation is served by the one
// that was kept.
func TestQueueOfOneThatDiesInProbation(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Probation = time.Minute
	r := &relay{t: t}
	cfg.Relay = r.serve
	f := start(t, cfg)
	f.until("generation 1", live(1))
	answers := make(chan error, 1)
	go func() { _, err := f.reload(); answers <- err }()
	pid := f.until("generation 2", live(2)).Live().PID
	syscall.Kill(pid, syscall.SIGSTOP)
	f.until("it to stop", func(Status) bool { return string(statFields(pid)[0]) == "T" })
	var clients sync.WaitGroup
	for range 5 {
		clients.Go(func() {
			if got := f.get("/"); got != "relayed" {
				t.Errorf("got %q", got)
			}
		})
	}
	f.until("the queue", func(s Status) bool { return s.MeasuredOf(*s.Generation(2)).Queue == 5 })
	syscall.Kill(pid, syscall.SIGKILL)
	clients.Wait()
	<-answers
	if st := f.until("generation 1 again", live(1)); st.Relayed != 5 {
		t.Errorf("%d were relayed", st.Relayed)
	}
}
