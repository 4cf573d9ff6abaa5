// Package leaktest fails a test binary whose tests pass and leave something behind:
// goroutines, open files, child processes. It is called by TestMain and by nothing
// that is no test.
package leaktest

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Run runs the tests and returns what the binary is to exit with. spare is how many
// more files may be open after them: the runtime keeps pipes for splice(2), as many as
// were in use at once, until they are collected as garbage.
func Run(m *testing.M, spare int) int {
	before := OpenFiles("self")
	if code := m.Run(); code != 0 {
		return code
	}
	if err := Find(before, spare); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Find looks for what is left behind of a time when the files before were open.
func Find(before map[int]string, spare int) error {
	if err := goleak.Find(); err != nil {
		return fmt.Errorf("goroutines leaked: %w", err)
	}
	after := OpenFiles("self")
	if spare > 0 {
		after = collected(len(before) + spare)
	}
	if len(after) > len(before)+spare {
		return fmt.Errorf("files leaked: open before %v, now %v", before, after)
	}
	if left := children(); len(left) > 0 {
		return fmt.Errorf("children left behind: %q", left)
	}
	return nil
}

// collected are the open files once no more than most are, or garbage has been
// collected for a while in vain. It is not done for everybody, since it would close an
// [os.File] too that somebody has forgotten.
func collected(most int) map[int]string {
	const rounds, round = 200, 10 * time.Millisecond
	for range rounds {
		if open := OpenFiles("self"); len(open) <= most {
			return open
		}
		runtime.GC()
		time.Sleep(round) // finalizers run beside us
	}
	return OpenFiles("self")
}

// OpenFiles are those of a process, by number, with what they are (/proc/PID/fd,
// proc(5)); none where there is no such directory. The poller of this process's own
// runtime, opened at its first use and never closed, is left out.
func OpenFiles(pid string) map[int]string {
	open := map[int]string{}
	dir := "/proc/" + pid + "/fd/"
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		fd, errFD := strconv.Atoi(e.Name())
		to, err := os.Readlink(dir + e.Name()) // of our own, the directory itself is closed by now
		poller := pid == "self" && (to == "anon_inode:[eventpoll]" || to == "anon_inode:[eventfd]")
		if err == nil && errFD == nil && !poller {
			open[fd] = to
		}
	}
	return open
}

// children are this process's, zombies too, as lines of /proc/PID/stat.
func children() []string {
	left := map[string]bool{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if err == nil && len(fields) > 1 && string(fields[1]) == strconv.Itoa(os.Getpid()) {
			left[strings.TrimSpace(string(b))] = true
		}
	}
	return slices.Sorted(maps.Keys(left))
}
