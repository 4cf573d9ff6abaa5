package reload

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/spawn"
	"github.com/gapless-dev/gapless/reload/state"
)

func running(pid int) bool {
	fields := statFields(pid)
	return len(fields) > 0 && !bytes.Equal(fields[0], []byte("Z"))
}

// killedIn are the pids that the log names as killed with a generation.
func (f *fixture) killedIn(generation int) []int {
	f.t.Helper()
	var pids []int
	for _, e := range f.mustEvents() {
		if e.Kind == "processes.killed" && e.Generation == generation {
			pids = append(pids, e.Fields["pids"].([]int)...)
		}
	}
	return pids
}

func brief(t *testing.T, habits ...string) Config {
	t.Helper()
	cfg := config(t, habits...)
	cfg.StopTimeout = 300 * time.Millisecond
	return cfg
}

func TestStrayEndsWithItsGeneration(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "stray")
	f := start(t, brief(t, "stray="+file))
	f.until("generation 1", live(1))
	stop := f.load()
	for n := 1; n <= 3; n++ {
		stray := strayOf(t, file, n)
		f.mustReload()
		f.until("the old generation to go", phase(n, state.Gone))
		if running(stray) {
			t.Errorf("the stray of generation %d runs still", n)
		}
		if killed := f.killedIn(n); !slices.Equal(killed, []int{stray}) {
			t.Errorf("named as killed are %v, the stray of generation %d is %d", killed, n, stray)
		}
		if !running(strayOf(t, file, n+1)) {
			t.Errorf("the stray of generation %d was killed", n+1)
		}
	}
	stop()
	text := fmt.Sprintf("web: generation 1 left pid %d (", strayOf(t, file, 1))
	if !strings.Contains(f.log.String(), text) || !strings.Contains(f.log.String(), ") behind; it is killed") {
		t.Errorf("the log has no %q", text)
	}
}

// The listener of one that crashed is the replacement's. A stray that does not follow
// the stop signal is not waited for, and accepts nothing any more when that is live.
func TestStrayOfACrashIsOffTheListener(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "stray")
	cfg := config(t, "stray="+file)
	cfg.StopTimeout = time.Hour
	f := start(t, cfg)
	pid := f.until("generation 1", live(1)).Live().PID
	stray := strayOf(t, file, 1)
	syscall.Kill(pid, syscall.SIGKILL)
	f.until("the replacement", live(2))
	if running(stray) {
		t.Error("it runs still, and has the listener of the replacement")
	}
	f.until("generation 1 to go", phase(1, state.Gone))
	if killed := f.killedIn(1); !slices.Contains(killed, stray) {
		t.Errorf("named as killed are %v, the stray is %d", killed, stray)
	}
	if !running(strayOf(t, file, 2)) {
		t.Error("the replacement's was killed too")
	}
}

// While one generation drains and another is live, only the strays of one that ends are
// killed.
func TestStraysOfTwoGenerations(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "stray")
	f := start(t, brief(t, "stray="+file))
	old := f.until("generation 1", live(1)).Live().PID
	f.stream()
	f.mustReload()
	f.until("the signal", func(s Status) bool { return !s.Generation(1).Signalled.IsZero() })
	one, two := strayOf(t, file, 1), strayOf(t, file, 2)
	if !running(one) || !running(two) {
		t.Fatal("one has ended already")
	}
	syscall.Kill(old, syscall.SIGKILL)
	f.until("generation 1 to go", phase(1, state.Gone))
	if running(one) || !running(two) {
		t.Errorf("runs: of 1 %v, of 2 %v", running(one), running(two))
	}
}

func TestFailedCandidateLeavesNobody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, habits := dir+"/stray", dir+"/habits"
	cfg := brief(t, "habits="+habits)
	// Said and not seen: a stray that accepts is the generation's as well.
	cfg.Ready.Mode, cfg.ReadyTimeout = ready.Notify, 5*time.Second
	write(t, habits, "notify")
	f := start(t, cfg)
	f.until("generation 1", live(1))
	for n, how := range []string{"exit=3", "hang"} {
		write(t, habits, "stray="+file+" "+how)
		if _, err := f.reload(); err == nil {
			t.Error("it went live")
		}
		f.until("the candidate to go", func(Status) bool { return f.saw("generation.gone", n+2) })
		if stray := strayOf(t, file, n+1); running(stray) || !slices.Contains(f.killedIn(n+2), stray) {
			t.Errorf("%s: the stray %d runs: %v; named as killed are %v", how, stray, running(stray), f.killedIn(n+2))
		}
	}
	if got := f.generation(); got != "1" {
		t.Errorf("clients are answered by %q", got)
	}
}

func (f *fixture) saw(kind string, generation int) bool {
	return slices.ContainsFunc(f.mustEvents(), func(e Event) bool { return e.Kind == kind && e.Generation == generation })
}

// Like the members of the process group, they are told to stop first.
func TestStrayIsToldToStop(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "stray")
	cfg := config(t, "polite="+file)
	cfg.StopTimeout = time.Hour
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.mustReload()
	f.until("generation 1 to go", phase(1, state.Gone))
	if stray := strayOf(t, file, 1); running(stray) {
		t.Errorf("the stray %d runs still", stray)
	}
	if killed := f.killedIn(1); len(killed) > 0 {
		t.Errorf("killed are %v", killed)
	}
}

// A notification may come from one that has got away, and whose parent has ended.
func TestStrayBelongs(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "stray")
	cfg := config(t, "stray="+file)
	cfg.StopTimeout = time.Minute
	f := start(t, cfg)
	main := f.until("generation 1", live(1)).Live().PID
	f.mustReload()
	f.until("the end of the main process", func(Status) bool { return !running(main) })
	belongs := func(pid int) (is bool) {
		f.ask(t.Context(), func() { is = f.belongs(f.runs[1], pid) })
		return is
	}
	if stray := strayOf(t, file, 1); !belongs(stray) || belongs(os.Getpid()) {
		t.Errorf("the stray belongs: %v, the holder: %v", belongs(stray), belongs(os.Getpid()))
	}
}

// A candidate is the one to go if memory runs out, until it is live; the first one is
// not, for nobody is live beside it.
func TestCandidateIsTheOneToGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := start(t, config(t, "habits="+dir+"/habits"))
	first := f.until("generation 1", live(1)).Live().PID
	write(t, dir+"/habits", "polite="+dir+"/child until="+dir+"/go") // a child that accepts nothing, or it would be ready by that
	answer := make(chan error, 1)
	go func() { _, err := f.reload(); answer <- err }()
	candidate := f.until("a candidate with a child", func(s Status) bool {
		noted, err := os.ReadFile(dir + "/child")
		return err == nil && len(noted) > 0 && s.Generation(2) != nil && s.Generation(2).PID != 0
	}).Generation(2).PID
	own := oomScore(t, os.Getpid())
	if got := oomScore(t, first); got != own {
		t.Errorf("the first has %d, and we %d", got, own)
	}
	child := strayOf(t, dir+"/child", 1)
	for _, pid := range []int{candidate, child} {
		if got := oomScore(t, pid); got != min(own+candidateOOM, 1000) {
			t.Errorf("of the candidate %d has %d, and we %d", pid, got, own)
		}
	}
	note(dir+"/go", "")
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	f.until("the old score", func(Status) bool { return oomScore(t, candidate) == own && oomScore(t, child) == own })
}

func oomScore(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMemoryForTwoIsMissedOnce(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		memory spawn.Memory
		found  bool
		told   int
	}{
		"too little": {spawn.Memory{Limit: 512 << 20, Used: 512<<20 - 1}, true, 1},
		"enough":     {spawn.Memory{Limit: 1 << 40, Used: 1 << 20}, true, 0},
		"no limit":   {spawn.Memory{}, false, 0},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			asked := make(chan struct{}, 2)
			cfg.Memory = func() (spawn.Memory, bool) { asked <- struct{}{}; return c.memory, c.found }
			f := start(t, cfg)
			f.until("generation 1", live(1))
			if len(asked) > 0 {
				t.Error("the first was measured, which is alone")
			}
			f.mustReload()
			<-asked
			if c.told > 0 {
				f.until("a warning", func(Status) bool { return f.saw("memory.short", 1) })
			}
			f.mustReload()
			told := 0
			for _, e := range f.mustEvents() {
				if e.Kind == "memory.short" {
					told++
					if !strings.Contains(e.Text, "of the limit of 512 MiB only 1 MiB are left; raise the limit by") || e.Level != levelWarn {
						t.Errorf("%s: %s", e.Level, e.Text)
					}
				}
			}
			if told != c.told {
				t.Errorf("told %d times", told)
			}
		})
	}
}
