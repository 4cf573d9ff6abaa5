package spawn

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// One that has ended, and that nobody has waited for yet, belongs to root in /proc: that
// another user can't write there is no failure.
func TestLowerOOMOfOneThatHasEnded(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	now, err := readOOM(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	r := &oomRaise{before: now, raised: now}
	for pid, want := range map[int]bool{cmd.Process.Pid: false, os.Getpid(): true} {
		if got := hasMemory(pid); got != want {
			t.Errorf("memory of %d: %t", pid, got)
		}
	}
	asNobody(func() { _, err = r.lower(stat{pid: cmd.Process.Pid, name: "true"}) })
	if err != nil {
		t.Error(err)
	}
}

// asNobody calls f on a thread that may not open what is root's (setfsuid(2)).
func asNobody(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked, so it ends with the goroutine
		unix.RawSyscall(unix.SYS_SETFSUID, 65534, 0, 0)
		f()
	}()
	<-done
}
