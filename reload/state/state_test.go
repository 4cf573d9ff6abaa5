package state

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func example() Service {
	at := time.Date(2026, 3, 1, 12, 0, 0, 500, time.UTC)
	return Service{
		Version: Version, Name: "web", Goal: Run, Next: 4, Crashes: 2, Refusing: true, Relayed: 3, Notifies: true, Recipe: Recipe{Command: []string{"web"}, Set: []string{"A=1"}},
		Previous: 2, Pinned: 1, ProbationEnds: at, Fallen: &Way{Generation: 1, Recipe: Recipe{Command: []string{"web"}}},
		Back:      &Way{Generation: 2, Recipe: Recipe{Command: []string{"web"}}, Program: Program{Path: "/web", Dir: "/", Hash: "00", Script: true, Origin: 1}},
		Endpoints: []Endpoint{{Name: "http", Spec: "http=:80", Addr: "[::]:80", Steering: "cbpf", Reserve: 7}},
		Generations: []Generation{
			{Number: 1, Phase: Failed, Started: at, Ended: at, Recipe: Recipe{Command: []string{"web"}}, Exit: "exit status 1", Failure: "ended"},
			{Number: 2, Phase: Draining, PID: 10, PIDStart: 99, Started: at, Ready: at, Signalled: at, Recipe: Recipe{Command: []string{"web"}}, Listeners: []Listener{{"http", 8}}},
			{Number: 3, Phase: Live, PID: 11, Started: at, Ready: at, Recipe: Recipe{Command: []string{"web", "-v"}, Dir: "/", EnvFile: "/env", Set: []string{"A=1"}}, Binary: "/bin/web", Listeners: []Listener{{"http", 9}}, Status: "up", Reason: "SIGHUP", Notified: true},
		},
	}
}

// All of it survives being written down.
func TestServiceIsData(t *testing.T) {
	b, err := json.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	var back Service
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(), back); diff != "" {
		t.Errorf("what was read back (-want +got):\n%s", diff)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	s := example()
	c := s.Clone()
	if diff := cmp.Diff(s, c); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c.Endpoints[0].Name = "changed"
	c.Generations[2].Phase = Gone
	c.Generations[2].Command[0], c.Generations[2].Set[0] = "changed", "changed"
	c.Back.Command[0], c.Fallen.Generation = "changed", 9
	c.Recipe.Command[0], c.Recipe.Set[0] = "changed", "changed"
	c.Generations[2].Listeners[0].Inode = 0
	if diff := cmp.Diff(example(), s); diff != "" {
		t.Errorf("a change of the copy changed the original (-want +got):\n%s", diff)
	}
}

func TestFindingGenerations(t *testing.T) {
	s := example()
	if g := s.Live(); g == nil || g.Number != 3 {
		t.Errorf("live is %+v", g)
	}
	if g := s.Generation(2); g != &s.Generations[1] {
		t.Errorf("generation 2 is %+v", g)
	}
	if g := s.Generation(4); g != nil {
		t.Errorf("generation 4 is %+v", g)
	}
	s.Generations[2].Phase = Gone
	if g := s.Live(); g != nil {
		t.Errorf("live is %+v", g)
	}
}

func TestRunning(t *testing.T) {
	for phase, want := range map[Phase]bool{Starting: true, Live: true, Draining: true, Gone: false, Failed: false, "": false} {
		if phase.Running() != want {
			t.Errorf("%q running is %v", phase, !want)
		}
	}
}
