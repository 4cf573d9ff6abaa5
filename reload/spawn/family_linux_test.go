package spawn

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever a daemon's child does to get away: it is of the generation, also when its
// main process is killed without anybody having looked before, and ends with it.
func TestWhoGetsAwayBelongs(t *testing.T) {
	for _, ways := range [][]string{
		{"setsid", "deaf"},
		{"leave", "deaf"}, // its parent is the main process, which is gone by then
		{"fork", "leave", "deaf"},
		{"fork", "leave", "leave", "deaf"},
		{"setsid", "setsid", "deaf"},
		{"setsid", "leave", "fork", "setsid", "deaf"},
	} {
		t.Run(strings.Join(ways, " "), func(t *testing.T) {
			h := live(t, ways...)
			stray := h.last(t)
			h.Signal(syscall.SIGKILL)
			<-h.Exited()
			if members, err := h.Members(); err != nil || !slices.Contains(members, stray) {
				t.Fatalf("members are %v, %v, without %d", members, err, stray)
			}
			select {
			case <-h.Gone():
				t.Error("it is gone, and a process runs")
			default:
			}
			if err := h.Kill(); err != nil {
				t.Error(err)
			}
			if err := h.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if runs(stray) {
				t.Errorf("%d runs still", stray)
			}
			killed := h.Killed()
			if !slices.ContainsFunc(killed, func(m Member) bool { return m.PID == stray && m.Name != "" }) {
				t.Errorf("%d was killed, and named are %v", stray, killed)
			}
			if more := h.Killed(); len(more) > 0 {
				t.Errorf("named twice: %v", more)
			}
			until(t, "its reaping", func() bool { return procState(stray) == "" })
		})
	}
}

// The stop signal reaches them too.
func TestSignalGroupReachesWhoGotAway(t *testing.T) {
	h := live(t, "stay", "leave", "idle")
	stray := h.last(t)
	h.Signal(syscall.SIGKILL)
	<-h.Exited()
	if err := h.SignalGroup(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := h.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if runs(stray) {
		t.Error("it runs still")
	}
	if killed := h.Killed(); len(killed) > 0 {
		t.Errorf("killed are %v", killed)
	}
}

// One without the mark is known if it was seen before its parent ended.
func TestSeenOnceIsKnown(t *testing.T) {
	h := live(t, "fork", "group", "blank")
	stray := h.last(t)
	between := parentOf(t, stray)
	if members, err := h.Members(); err != nil || !slices.Contains(members, stray) {
		t.Fatalf("members are %v, %v, without %d", members, err, stray)
	}
	kill(t, between)
	until(t, "its being an orphan", func() bool { return parentOf(t, stray) == os.Getpid() })
	if hasMark(stray, h.family.mark) {
		t.Fatal("it has its mark, so that this shows nothing")
	}
	endsWith(t, h, stray)
}

// Nor does it help to be born later in the session of one that was seen.
func TestSessionOfOneSeenIsKnown(t *testing.T) {
	h := live(t, "setsid", "told", "blank")
	told := h.last(t)
	if _, err := h.Members(); err != nil {
		t.Fatal(err)
	}
	kill(t, parentOf(t, told))
	unix.Kill(told, unix.SIGUSR1)
	stray := h.last(t)
	until(t, "its being an orphan", func() bool { return parentOf(t, stray) == os.Getpid() })
	endsWith(t, h, stray)
}

// endsWith: the main process ends, and then stray is killed with the rest.
func endsWith(t *testing.T, h household, stray int) {
	t.Helper()
	h.Signal(syscall.SIGKILL)
	<-h.Exited()
	if err := h.Kill(); err != nil {
		t.Error(err)
	}
	if err := h.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if runs(stray) {
		unix.Kill(stray, unix.SIGKILL)
		t.Errorf("%d runs still", stray)
	}
}

// Of two with orphans each, only one's are killed, and no stranger: neither a child of
// the holder's own, nor that one's orphan.
func TestOthersLiveOn(t *testing.T) {
	one, two := live(t, "stay", "leave", "deaf"), live(t, "stay", "leave", "deaf")
	first, second := one.last(t), two.last(t)
	own := exec.Command("sleep", "600")
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { own.Process.Kill(); own.Wait() }()
	stranger := strangerOf(t, "sleep", "600")
	endsWith(t, one, first)
	for what, pid := range map[string]int{"the other's orphan": second, "the other": two.PID(), "the holder's child": own.Process.Pid, "a stranger": stranger} {
		if !runs(pid) {
			t.Errorf("%s was killed", what)
		}
	}
	if members, err := two.Members(); err != nil || !slices.Contains(members, second) || slices.Contains(members, stranger) || slices.Contains(members, own.Process.Pid) {
		t.Errorf("members of the other: %v, %v", members, err)
	}
}

// strangerOf makes an orphan of the holder's that is of no generation.
func strangerOf(t *testing.T, argv ...string) int {
	t.Helper()
	out, err := exec.Command("sh", "-c", `setsid "$@" >/dev/null 2>&1 & echo $!`, "sh", argv[0], argv[1]).Output()
	if err != nil {
		t.Fatal(err)
	}
	pid := number(t, string(out))
	until(t, "an orphan", func() bool { return parentOf(t, pid) == os.Getpid() })
	t.Cleanup(func() { unix.Kill(pid, unix.SIGKILL); reapOne(pid) })
	return pid
}

// KillGroup of old: who leaves the group lives on.
func TestGroupOnly(t *testing.T) {
	o := options(t, "/proc/self/exe", "__parent", "setsid", "idle")
	o.Path, o.GroupOnly = "/proc/self/exe", true
	h := liveAs(t, o)
	stray := h.last(t)
	if members, err := h.Members(); err != nil || !slices.Equal(members, []int{h.PID()}) {
		t.Errorf("members are %v, %v", members, err)
	}
	h.Kill()
	if err := h.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !runs(stray) {
		t.Error("it was killed")
	}
	kill(t, stray)
	reapOne(stray)
}

// One that forks as quickly as it can is killed all the same.
func TestKillOutrunsForks(t *testing.T) {
	o := options(t, "sh", "-c", `echo 1; while :; do setsid sh -c 'sleep 600 & sleep 600 &' & done`)
	h := liveAs(t, o)
	h.last(t)
	until(t, "a crowd", func() bool { m, err := h.Members(); return err != nil || len(m) > 30 })
	h.Signal(syscall.SIGKILL)
	if err := h.Kill(); err != nil {
		t.Error(err)
	}
	if err := h.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := h.family.find(); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestKillIf(t *testing.T) {
	h := live(t, "setsid", "deaf")
	stray := h.last(t)
	if err := h.KillIf(func(pid int) bool { return pid == stray || pid == h.PID() }); err != nil {
		t.Error(err)
	}
	until(t, "its end", func() bool { return !runs(stray) })
	if killed := h.Killed(); len(killed) != 1 || killed[0].PID != stray {
		t.Errorf("killed are %v", killed)
	}
	<-h.Exited() // as its only child has ended; it was not killed
	if h.Exit().Failed() {
		t.Errorf("the main process: %s", h.Exit())
	}
}
