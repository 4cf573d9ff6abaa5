package reload

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// cgroupMark is set where the tests run in a cgroup of their own.
const cgroupMark = "GAPLESS_TEST_CGROUP"

// Where generations have cgroups, the kernel knows which connections came by a listener
// that was made in one.
func TestCountsInACgroup(t *testing.T) {
	dir := ownCgroup(t)
	defer unix.Close(dir)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestCountsByCgroup$", "-test.v")
	cmd.Env = append(os.Environ(), cgroupMark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: dir}
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestCountsByCgroup")) {
		t.Errorf("%v:\n%s", err, out)
	}
}

// ownCgroup is below the root of the unified hierarchy, for the test.
func ownCgroup(t *testing.T) (dir int) {
	t.Helper()
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("needs a machine without systemd, which would have to delegate a cgroup")
	}
	mounts, _ := os.ReadFile("/proc/mounts")
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if fields[2] != "cgroup2" {
			continue
		}
		path, err := os.MkdirTemp(fields[1], "gapless-test-")
		if err != nil {
			t.Skip("no cgroup can be made, which root can: ", err)
		}
		t.Cleanup(func() {
			for end := time.Now().Add(patience); unix.Rmdir(path) != nil; time.Sleep(time.Millisecond) { // until its last task has gone
				if time.Now().After(end) {
					t.Fatalf("%s is not empty", path)
				}
			}
		})
		dir, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	t.Skip("there is no cgroup v2 on this machine")
	return -1
}

func TestCountsByCgroup(t *testing.T) {
	if os.Getenv(cgroupMark) == "" {
		t.Skip("is for a cgroup of its own, where TestCountsInACgroup runs it")
	}
	bound, gate, again := at(v4, freePort(t)), t.TempDir()+"/go", t.TempDir()+"/again"
	replaced := []string{"wait:" + gate, "socket:s,4,reuseaddr", "bind:s," + bound, "listen:s", "serve:s"}
	for _, c := range []struct {
		name string
		cfg  Config
		own  bool // by its cgroup
	}{
		{"its own socket", binds(t, bound, "wait:"+gate, "on:"+bound), true},
		{"a listener that it got", config(t), false},
		{"one put in the place of its own", binds(t, bound, replaced...), false},
		{"one of its own after that", binds(t, bound, append(replaced, "wait:"+again, "close:s", "on:"+bound+",reuseaddr")...), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !c.own {
				os.Remove(gate)
			}
			var asked atomic.Pointer[conns.Question]
			sys := realSystem()
			sys.count = func(ctx context.Context, q conns.Question) (conns.Count, error) {
				asked.Store(&q)
				return countConnections(ctx, q)
			}
			if strings.Contains(c.name, "after") { // else what was offered to it would stay open
				c.cfg.Delivery = DeliveryBind
			}
			c.cfg.Cgroups = spawn.FindCgroups()
			f := startOn(t, c.cfg, sys)
			f.held(c.own, gate)
			if strings.Contains(c.name, "after") {
				write(t, again, "")
				f.until("the other socket", func(Status) bool {
					return slices.ContainsFunc(f.mustEvents(), func(e Event) bool { return e.Fields["how"] == "keep" })
				})
				if _, err := f.Status(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			q := *asked.Load()
			if c.own {
				q.PIDs = nil // which would count it, too
			}
			if n, err := countConnections(t.Context(), q); err != nil || n.Open != 1 || (q.Cgroup != 0) != c.own {
				t.Errorf("asked by cgroup %d, %d are counted; %v", q.Cgroup, n.Open, err)
			}
		})
	}
}

// held is a connection to the daemon, and a look at it: after it has bound, or before, so
// that the one who waits is let in by our own listener.
func (f *fixture) held(after bool, gate string) {
	f.t.Helper()
	if after {
		write(f.t, gate, "")
		f.until("generation 1", live(1))
	}
	client, err := net.Dial("tcp", f.Addrs()[0].Addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { client.Close() })
	write(f.t, gate, "")
	f.untilCounted("the connection", func(s Status) bool {
		return s.Live() != nil && s.MeasuredOf(*s.Live()).Connections == 1
	})
}
