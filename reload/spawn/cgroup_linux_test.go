package spawn

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// cgroupMark is set where the tests run in a cgroup that is delegated to them.
const cgroupMark = "GAPLESS_TEST_CGROUP"

// endings are the tests that must hold for whoever runs the holder, and wherever.
const endings = "^(TestWhoGetsAwayBelongs|TestSignalGroupReachesWhoGotAway|TestSeenOnceIsKnown|TestSessionOfOneSeenIsKnown|TestOthersLiveOn|TestKillOutrunsForks|TestKillIf|TestGenerationHasACgroup|TestOOM.*|TestFaultLeavesNoCgroup|TestStrangersAreReaped|TestTryCgroup)$"

func TestEndingsAsAnOrdinaryUser(t *testing.T) { testAgain(t, 65534, false) }

func TestEndingsInACgroup(t *testing.T) { testAgain(t, 0, true) }

func TestEndingsInACgroupAsAnOrdinaryUser(t *testing.T) { testAgain(t, 65534, true) }

// testAgain runs the endings as somebody else, and perhaps in a cgroup of his.
func testAgain(t *testing.T, uid int, delegate bool) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else and to make a cgroup")
	}
	if os.Getenv(cgroupMark) != "" {
		t.Skip("is one of those that are run again")
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil && delegate {
		t.Skip("needs a machine without systemd, which would have to delegate a cgroup")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run="+endings, "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), cgroupMark+"=none")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	var own string
	if delegate {
		own = newCgroup(t, uid)
		c := &cgroup{dir: own}
		dir, err := c.attr(cmd.SysProcAttr)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cmd.Env = append(cmd.Env, cgroupMark+"="+own)
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestWhoGetsAwayBelongs")) {
		t.Errorf("%v:\n%s", err, out)
	}
	if left, _ := filepath.Glob(own + "/gapless-*"); delegate && len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}

// newCgroup is one for a user, below our own in the unified hierarchy, for the test.
func newCgroup(t *testing.T, uid int) string {
	t.Helper()
	dir, _, ok := unifiedDir("/proc/self")
	if !ok {
		t.Skip("there is no cgroup v2 on this machine")
	}
	own, err := os.MkdirTemp(dir, "gapless-test-")
	if err != nil {
		t.Skip("no cgroup can be made: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(own); err != nil {
			t.Errorf("the test's cgroup is not empty: %v", err)
		}
	})
	for _, file := range []string{"", "cgroup.procs"} {
		if err := os.Chown(filepath.Join(own, file), uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	return own
}

func inCgroup(t *testing.T) string {
	t.Helper()
	own := os.Getenv(cgroupMark)
	if !strings.HasPrefix(own, "/") {
		t.Skip("is for a delegated cgroup, where TestEndingsInACgroup runs it")
	}
	return own
}

func TestGenerationHasACgroup(t *testing.T) {
	own := inCgroup(t)
	o := options(t, "/proc/self/exe", "__parent", "stay", "leave", "blank")
	o.Path, o.Name = "/proc/self/exe", "web/1 ä"
	h := liveAs(t, o)
	stray := h.last(t)
	dir := h.family.cgroup.dir
	if filepath.Dir(dir) != own || !strings.HasPrefix(filepath.Base(dir), "gapless-web_1__-") {
		t.Errorf("its cgroup is %s", dir)
	}
	if pids := h.family.cgroup.pids(); !slices.Contains(pids, h.PID()) || !slices.Contains(pids, stray) {
		t.Errorf("in it are %v, without %d or %d", pids, h.PID(), stray)
	}
	// One below, as a daemon may make it, with somebody in it.
	if err := os.Mkdir(dir+"/below", 0o755); err != nil {
		t.Fatal(err)
	}
	below := &cgroup{dir: dir + "/below"}
	if err := below.enter(stray); err != nil {
		t.Fatal(err)
	}
	// Nobody has looked while its parents ran, and its mark is gone.
	if hasMark(stray, h.family.mark) || h.family.seen[stray] != 0 {
		t.Fatal("it could be known otherwise, so that this shows nothing")
	}
	endsWith(t, h, stray)
	if _, err := os.Stat(dir); err == nil {
		t.Error("its cgroup is there still")
	}
}

func TestFaultLeavesNoCgroup(t *testing.T) {
	own := inCgroup(t)
	if _, err := Start(t.Context(), options(t, "/nowhere")); err == nil {
		t.Error("it was started")
	}
	if left, _ := filepath.Glob(own + "/gapless-*"); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}

// Where clone3 can't do it, the shim is moved before it has its order.
func TestEnter(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a cgroup")
	}
	c := &cgroup{dir: newCgroup(t, 0)}
	p := run(t, options(t, "sleep", "600"))
	if err := c.enter(p.PID()); err != nil {
		t.Fatal(err)
	}
	if pids := c.pids(); !slices.Equal(pids, []int{p.PID()}) {
		t.Errorf("in it are %v", pids)
	}
	c.kill()
	<-p.Exited()
	if p.Exit().Signal != syscall.SIGKILL {
		t.Errorf("it ended by %s", p.Exit())
	}
}

// Without a directory to make one in, or with one that is gone, it starts all the same.
func TestNoCgroupIsNoFault(t *testing.T) {
	for what, c := range map[string]*Cgroups{"none": nil, "gone": {dir: "/nowhere"}, "not of a cgroup": {dir: t.TempDir()}} {
		o := options(t, "sleep", "600")
		o.Cgroups = c
		p := run(t, o)
		if p.family.cgroup != nil {
			t.Errorf("%s: it has %s", what, p.family.cgroup.dir)
		}
	}
}

func TestDelegated(t *testing.T) {
	dir := t.TempDir()
	if delegated(dir, false) {
		t.Error("a directory without cgroup.procs is taken for delegated")
	}
	touch(t, dir+"/cgroup.procs")
	if delegated(dir, false) {
		t.Error("the root of the hierarchy is taken for delegated")
	}
	touch(t, dir+"/cgroup.events")
	if !delegated(dir, false) {
		t.Error("one that is ours is not taken for delegated")
	}
	if delegated(dir, true) {
		t.Error("one that systemd has not marked is taken for delegated")
	}
	if err := unix.Setxattr(dir, "user.delegate", []byte("1"), 0); err != nil {
		t.Skip("this file system has no extended attributes: ", err)
	}
	if !delegated(dir, true) {
		t.Error("one that systemd has marked is not taken for delegated")
	}
}

func touch(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCgroupDir(t *testing.T) {
	const mounts = `25 1 8:1 / / rw - ext4 /dev/root rw
30 25 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/uni\040fied rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
`
	for _, c := range []struct{ cgroup, mounts, unified, memory string }{
		{"4:memory:/docker/abc/x\n0::/user.slice/a:b\n", mounts, "/sys/fs/cgroup/uni fied/user.slice/a:b", "/sys/fs/cgroup/memory/x"},
		{"4:cpu,memory:/docker/abc\n0::/\n", mounts, "/sys/fs/cgroup/uni fied", "/sys/fs/cgroup/memory"},
		{"4:memory:/docker/abcd\n0::/../other\n", mounts, "", ""},
		{"4:cpu:/docker/abc\n", mounts, "", ""},
		{"0::/x\n", "25 1 8:1 / / rw - ext4 /dev/root rw\n", "", ""},
	} {
		proc := t.TempDir()
		os.WriteFile(proc+"/cgroup", []byte(c.cgroup), 0o644)
		os.WriteFile(proc+"/mountinfo", []byte(c.mounts), 0o644)
		if dir, _, ok := unifiedDir(proc); dir != c.unified || ok != (c.unified != "") {
			t.Errorf("%q: unified %q, %v", c.cgroup, dir, ok)
		}
		if dir, _, ok := memoryDir(proc); dir != c.memory || ok != (c.memory != "") {
			t.Errorf("%q: memory %q, %v", c.cgroup, dir, ok)
		}
	}
}
