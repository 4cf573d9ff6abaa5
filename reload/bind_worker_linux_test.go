package reload

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// workersAt asks until n processes have answered.
func (f *fixture) workersAt(addr string, n int) map[string]int {
	f.t.Helper()
	seen := map[string]int{}
	f.until(fmt.Sprint(n, " workers to answer"), func(Status) bool {
		_, pid, err := ask(addr)
		if err != nil {
			f.t.Error(err)
		}
		seen[pid]++
		return len(seen) == n
	})
	return seen
}

// Workers that bind each get their share. When one dies, its listener leaves at once,
// with whoever waits in it: nobody is sent to the dead, while the worker is started anew
// or not.
func TestWorkerThatDies(t *testing.T) {
	for _, c := range []struct{ name, steps string }{
		{"started anew", "child:note:D/pids|on:A,reuseport keep:note:D/pids|note:D/second|wait:D/go|on:A,reuseport"},
		{"not started anew", "child:note:D/pids|on:A,reuseport child:note:D/pids|note:D/second|wait:D/go|on:A,reuseport"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, dir := at(v4, freePort(t)), t.TempDir()
			write(t, dir+"/go", "")
			f := start(t, binds(t, addr, strings.Fields(strings.NewReplacer("A", addr, "D", dir).Replace(c.steps))...))
			f.until("generation 1", live(1))
			for pid := range f.workersAt(addr, 2) {
				if !strings.Contains(f.noted(dir+"/pids"), pid) {
					t.Errorf("%s is no worker", pid)
				}
			}
			os.Remove(dir + "/go")
			victim := lastOf(strings.Fields(f.noted(dir + "/second")))
			if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			f.until("its listener to be gone", func(s Status) bool { return len(s.Live().Listeners) == 1 })
			for range 20 {
				servedBy(t, "1", addr)
			}
			write(t, dir+"/go", "")
			if c.name == "started anew" {
				f.workersAt(addr, 2)
			}
			stop := f.loadAt(addr)
			f.mustReload()
			stop()
			servedBy(t, "2", addr)
			f.until("generation 1 to be gone", alone)
		})
	}
}

func (f *fixture) noted(file string) string {
	text, _ := os.ReadFile(file)
	return string(text)
}

func lastOf(pids []string) int {
	pid, _ := strconv.Atoi(pids[len(pids)-1])
	return pid
}
