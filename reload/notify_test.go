package reload

import (
	"os"
	"testing"

	"github.com/gapless-dev/gapless/reload/notify"
	"github.com/gapless-dev/gapless/reload/spawn"
	"github.com/gapless-dev/gapless/reload/state"
)

// READY=1 may be read before the start of the process that said it is known: it was
// lost then, and the candidate was given up for not having said it.
func TestReadyThatComesBeforeTheStart(t *testing.T) {
	t.Parallel()
	proc, err := spawn.Start(t.Context(), spawn.Options{
		Order: spawn.Order{Argv: []string{"sleep", "60"}, Env: os.Environ()}, Shim: []string{"/proc/self/exe", "__shim"},
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{inbox: make(chan func(), 2), ended: make(chan struct{}), runs: map[int]*generation{}}
	s.st = state.Service{Generations: []state.Generation{{Number: 1, Phase: state.Starting}}}
	g := &generation{number: 1, said: make(chan struct{})}
	s.heard(g, notify.Message{PID: proc.PID(), Fields: map[string]string{"READY": "1"}})
	s.follow(g, proc)
	select {
	case <-g.said:
	default:
		t.Error("READY=1 was forgotten")
	}
	proc.SignalGroup(9)
	<-proc.Gone()
	s.wg.Wait()
}

// Whoever else writes to the socket says nothing of the daemon.
func TestReadyOfAnother(t *testing.T) {
	t.Parallel()
	f, underWay := reloading(t)
	f.ask(t.Context(), func() {
		g := f.runs[2]
		f.heard(g, notify.Message{PID: os.Getpid(), Fields: map[string]string{"READY": "1", "STATUS": "mine"}})
		if r := f.record(g); r.Notified || r.Status != "" || f.st.Notifies {
			t.Errorf("it was believed: %+v", r)
		}
		f.giveUpCandidate("so it is")
	})
	failure(t, <-underWay)
	f.until("the report", f.happened("notify.ignored"))
}
