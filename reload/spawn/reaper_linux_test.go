package spawn

import (
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func reaping(t *testing.T) {
	t.Helper()
	r, err := NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
}

func TestStrangersAreReaped(t *testing.T) {
	reaping(t)
	for range 5 {
		pid := strangerOf(t, "sleep", "600")
		syscall.Kill(pid, syscall.SIGKILL)
		until(t, "its reaping", func() bool { return procState(pid) == "" })
	}
}

// One that has ended and is waited for late hides no stranger, and is not reaped.
func TestStrangersAreReapedBehindAChild(t *testing.T) {
	reaping(t)
	cmd := exec.Command("sh", "-c", "exit 3")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "its end", func() bool { return procState(cmd.Process.Pid) == "Z" })
	p := run(t, options(t, "sh", "-c", "sleep 600 & exit 5"))
	<-p.Exited()
	pid := strangerOf(t, "sleep", "600")
	syscall.Kill(pid, syscall.SIGKILL)
	until(t, "its reaping", func() bool { return procState(pid) == "" })
	if got := procState(p.PID()); got != "Z" {
		t.Errorf("the main process is in state %q", got)
	}
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("the child: %s", cmd.ProcessState)
	}
}

// Whoever waits for a child of his own gets its status, however many orphans end
// meanwhile.
func TestStatusIsNotStolen(t *testing.T) {
	reaping(t)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				exec.Command("sh", "-c", "sleep 0.01 & sleep 0.02 &").Run()
			}
		}
	})
	var own sync.WaitGroup
	for range 4 {
		own.Go(func() {
			for range 40 {
				cmd := exec.Command("sh", "-c", "exit 3")
				if err := cmd.Run(); cmd.ProcessState.ExitCode() != 3 {
					t.Errorf("%v, %s", err, cmd.ProcessState)
				}
			}
		})
	}
	own.Wait()
	close(stop)
	wg.Wait()
	until(t, "the reaping of all", func() bool { return len(children(t)) == 0 })
}

func children(t *testing.T) []stat {
	t.Helper()
	all, err := readTable()
	if err != nil {
		t.Fatal(err)
	}
	var ours []stat
	for _, s := range all {
		if s.parent == syscall.Getpid() {
			ours = append(ours, s)
		}
	}
	return ours
}

// Closing comes after what has ended; an orphan that ends later is left.
func TestCloseReapsTheLast(t *testing.T) {
	r, err := NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	pid := strangerOf(t, "sleep", "600")
	kill(t, pid)
	r.Close()
	if got := procState(pid); got != "" {
		t.Errorf("it is in state %q", got)
	}
	r.Close() // again
}
