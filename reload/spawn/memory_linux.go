package spawn

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// FindMemory reads the limits (memory.max of cgroup v2, memory.limit_in_bytes of v1) of
// the holder's own cgroup and of those above it. It is false where there are none.
func FindMemory() (Memory, bool) { return memoryOf("/proc/self") }

func memoryOf(proc string) (Memory, bool) {
	if dir, mount, ok := unifiedDir(proc); ok {
		if m, ok := tightest(dir, mount, unifiedMemory); ok {
			return m, true
		}
	}
	if dir, mount, ok := memoryDir(proc); ok {
		return tightest(dir, mount, v1Memory)
	}
	return Memory{}, false
}

// memoryFiles are a hierarchy's names for the limit, for what is used, and for what of
// that is a file's content and can be dropped.
type memoryFiles struct {
	limit, used string
	droppable   [2]string // lines of memory.stat
}

var (
	unifiedMemory = memoryFiles{"memory.max", "memory.current", [2]string{"inactive_file", "active_file"}}
	v1Memory      = memoryFiles{"memory.limit_in_bytes", "memory.usage_in_bytes", [2]string{"total_inactive_file", "total_active_file"}}
)

// tightest is the one with the least room from dir up to the mount.
func tightest(dir, mount string, names memoryFiles) (Memory, bool) {
	var least Memory
	found := false
	for ; ; dir = filepath.Dir(dir) {
		if m, ok := names.read(dir); ok && (!found || m.Room() < least.Room()) {
			least, found = m, true
		}
		if dir == mount || dir == "/" || dir == "." {
			return least, found
		}
	}
}

// unlimited is more than any limit that is one: v1 writes the largest number of whole
// pages where there is none.
const unlimited = 1 << 60

func (f memoryFiles) read(dir string) (Memory, bool) {
	limit, ok := readNumber(filepath.Join(dir, f.limit))
	if !ok || limit >= unlimited {
		return Memory{}, false
	}
	used, ok := readNumber(filepath.Join(dir, f.used))
	if !ok {
		return Memory{}, false
	}
	var droppable uint64
	eachNumber(filepath.Join(dir, "memory.stat"), func(name string, n uint64) {
		if name == f.droppable[0] || name == f.droppable[1] {
			droppable += n
		}
	})
	return Memory{Limit: limit, Used: used - min(used, droppable)}, true
}

// readNumber is false for "max" as well.
func readNumber(file string) (uint64, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	return n, err == nil
}

// eachNumber of a file of lines with a name and a number.
func eachNumber(file string, f func(name string, n uint64)) {
	b, err := os.ReadFile(file)
	if err != nil {
		return
	}
	for line := range bytes.Lines(b) {
		if fields := bytes.Fields(line); len(fields) >= 2 {
			if n, err := strconv.ParseUint(string(fields[1]), 10, 64); err == nil {
				f(string(bytes.TrimSuffix(fields[0], []byte(":"))), n)
			}
		}
	}
}

// Resident is what processes have in memory and another copy of them would need as
// well, in bytes: what is no file's, and what they share among themselves once.
func Resident(pids []int) uint64 {
	var sum uint64
	for _, pid := range pids {
		sum += resident("/proc/" + strconv.Itoa(pid))
	}
	return sum
}

// resident reads smaps_rollup (proc_pid_smaps(5), Linux 4.14; by kind since 5.4), and
// for a process whose memory may not be read status, which counts shared pages as often
// as they are shared.
func resident(proc string) uint64 {
	sizes := map[string]uint64{}
	for _, file := range []string{"/smaps_rollup", "/status"} {
		eachNumber(proc+file, func(name string, kB uint64) { sizes[name] = kB << 10 })
		if _, ok := sizes["Pss_Anon"]; ok {
			return sizes["Pss_Anon"] + sizes["Pss_Shmem"]
		}
	}
	return sizes["RssAnon"] + sizes["RssShmem"]
}
