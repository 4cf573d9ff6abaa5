package spawn

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// machine is a directory like /proc/PID, and two hierarchies, with the files' contents.
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["proc/cgroup"] = "4:memory:/a/b\n0::/a/b\n"
	files["proc/mountinfo"] = fmt.Sprintf("31 30 0:27 / %s/v2 rw - cgroup2 cgroup2 rw\n32 30 0:28 / %s/v1 rw - cgroup cgroup rw,memory\n", dir, dir)
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir + "/proc"
}

func TestFindMemory(t *testing.T) {
	for what, c := range map[string]struct {
		files map[string]string
		want  Memory
		found bool
	}{
		"no controller": {map[string]string{}, Memory{}, false},
		"no limit":      {map[string]string{"v2/a/b/memory.max": "max\n", "v2/a/b/memory.current": "5\n"}, Memory{}, false},
		"own": {map[string]string{"v2/a/b/memory.max": "1000\n", "v2/a/b/memory.current": "700\n",
			"v2/a/b/memory.stat": "anon 400\ninactive_file 150\nactive_file 50\nfile 250\n"}, Memory{1000, 500}, true},
		"above, with less room": {map[string]string{"v2/a/b/memory.max": "1000\n", "v2/a/b/memory.current": "100\n",
			"v2/a/memory.max": "2000\n", "v2/a/memory.current": "1900\n"}, Memory{2000, 1900}, true},
		"above, with more room": {map[string]string{"v2/a/b/memory.max": "1000\n", "v2/a/b/memory.current": "100\n",
			"v2/a/memory.max": "2000\n", "v2/a/memory.current": "200\n"}, Memory{1000, 100}, true},
		"only above": {map[string]string{"v2/a/b/memory.max": "max\n", "v2/a/memory.max": "2000\n", "v2/a/memory.current": "200\n"}, Memory{2000, 200}, true},
		"v1": {map[string]string{"v1/a/b/memory.limit_in_bytes": "1000\n", "v1/a/b/memory.usage_in_bytes": "700\n",
			"v1/a/b/memory.stat": "cache 300\ninactive_file 1\ntotal_inactive_file 150\ntotal_active_file 50\n"}, Memory{1000, 500}, true},
		"v1 without": {map[string]string{"v1/a/b/memory.limit_in_bytes": "9223372036854771712\n", "v1/a/b/memory.usage_in_bytes": "700\n"}, Memory{}, false},
		"over":       {map[string]string{"v2/a/b/memory.max": "1000\n", "v2/a/b/memory.current": "1100\n"}, Memory{1000, 1100}, true},
	} {
		got, found := memoryOf(machine(t, c.files))
		if got != c.want || found != c.found {
			t.Errorf("%s: %+v, %v", what, got, found)
		}
		if got.Room() > got.Limit || c.found && got.Used > got.Limit && got.Room() != 0 {
			t.Errorf("%s: room %d", what, got.Room())
		}
	}
}

func TestResidentReadsEither(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(dir+"/status", []byte("Name:\tx\nRssAnon:\t  40 kB\nRssFile:\t  900 kB\nRssShmem:\t  2 kB\n"), 0o644)
	if got := resident(dir); got != 42<<10 {
		t.Errorf("from status %d", got)
	}
	os.WriteFile(dir+"/smaps_rollup", []byte("00400000-7ffd0000 ---p 00000000 00:00 0  [rollup]\nPss: 900 kB\nPss_Anon: 20 kB\nPss_File: 879 kB\nPss_Shmem: 1 kB\n"), 0o644)
	if got := resident(dir); got != 21<<10 {
		t.Errorf("from smaps_rollup %d", got)
	}
	os.Remove(dir + "/smaps_rollup")
	os.Remove(dir + "/status")
	if got := resident(dir); got != 0 {
		t.Errorf("of nobody %d", got)
	}
}

func TestResidentCountsWhatIsUsed(t *testing.T) {
	before := Resident([]int{os.Getpid()})
	const size = 64 << 20
	b, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(b)
	if grown := Resident([]int{os.Getpid()}) - before; grown < size*9/10 || grown > size*3/2 {
		t.Errorf("%d more, and %d were used", grown, size)
	}
}

// Its children have inherited it, and those that get away.
func TestOOMIsRaisedAndLowered(t *testing.T) {
	before := oomOf(t, os.Getpid())
	o := options(t, "/proc/self/exe", "__parent", "stay", "leave", "idle")
	o.Path, o.RaiseOOM = "/proc/self/exe", 200
	h := liveAs(t, o)
	stray := h.last(t)
	for _, pid := range []int{h.PID(), stray} {
		if got := oomOf(t, pid); got != min(before+200, 1000) {
			t.Errorf("%d has %d, and we %d", pid, got, before)
		}
	}
	if err := h.LowerOOM(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{h.PID(), stray} {
		if got := oomOf(t, pid); got != before {
			t.Errorf("%d has %d afterwards, and we %d", pid, got, before)
		}
	}
}

// Who has set another value has his reasons.
func TestOOMOfItsOwnStays(t *testing.T) {
	o := options(t, "sh", "-c", "echo 500 >/proc/self/oom_score_adj; echo 1; sleep 600")
	o.RaiseOOM = 200
	h := liveAs(t, o)
	h.last(t)
	if err := h.LowerOOM(); err != nil {
		t.Fatal(err)
	}
	if got := oomOf(t, h.PID()); got != 500 {
		t.Errorf("it has %d", got)
	}
}

func TestOOMHasAMost(t *testing.T) {
	o := options(t, "sleep", "600")
	o.RaiseOOM = 5000
	p := run(t, o)
	if got := oomOf(t, p.PID()); got != 1000 {
		t.Errorf("it has %d", got)
	}
	if err := p.LowerOOM(); err != nil {
		t.Error(err)
	}
	o.RaiseOOM = 0
	if got, own := oomOf(t, run(t, o).PID()), oomOf(t, os.Getpid()); got != own {
		t.Errorf("one that was not raised has %d, and we %d", got, own)
	}
}

func oomOf(t *testing.T, pid int) int {
	t.Helper()
	n, err := readOOM(pid)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
