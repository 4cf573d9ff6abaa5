package headline

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// family are processes, with the time each was started at, by which one is told from
// another that has its number later.
type family map[int]string

// children of a process, zombies left out.
func children(of int) family {
	all := family{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if parent, started := stat(pid); started != "" && parent == of {
			all[pid] = started
		}
	}
	return all
}

func descendants(of int) family {
	all := family{}
	for pid, started := range children(of) {
		all[pid] = started
		maps.Copy(all, descendants(pid))
	}
	return all
}

// startOf is empty for one that has ended.
func startOf(pid int) string {
	_, started := stat(pid)
	return started
}

// stat reads /proc/PID/stat (proc(5)): what follows the name, which may hold anything.
func stat(pid int) (parent int, started string) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, ""
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return 0, ""
	}
	parent, _ = strconv.Atoi(fields[1])
	return parent, fields[19]
}

func commandLine(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.ReplaceAll(string(text), "\x00", " ")
}
