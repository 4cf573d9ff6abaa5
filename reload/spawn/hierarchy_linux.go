package spawn

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// unifiedDir is the directory of the cgroup v2 that a process is in, and where the
// hierarchy is mounted. proc is its directory of /proc.
func unifiedDir(proc string) (dir, mount string, ok bool) {
	return cgroupDir(proc, func(id string, controllers []string) bool { return id == "0" },
		func(fstype string, options []string) bool { return fstype == "cgroup2" })
}

// memoryDir is that of the v1 controller of memory.
func memoryDir(proc string) (dir, mount string, ok bool) {
	return cgroupDir(proc, func(_ string, controllers []string) bool { return slices.Contains(controllers, "memory") },
		func(fstype string, options []string) bool {
			return fstype == "cgroup" && slices.Contains(options, "memory")
		})
}

// cgroupDir joins the process's path in a hierarchy (/proc/PID/cgroup, cgroups(7)) to
// where that is mounted (/proc/PID/mountinfo, proc_pid_mountinfo(5)). A path that is not
// below what is mounted, as in a container that shares the host's namespace, has none.
func cgroupDir(proc string, line func(id string, controllers []string) bool, mounted func(fstype string, options []string) bool) (dir, mount string, ok bool) {
	path, ok := cgroupPath(proc, line)
	if !ok {
		return "", "", false
	}
	b, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
	if err != nil {
		return "", "", false
	}
	for one := range bytes.Lines(b) {
		before, after, _ := strings.Cut(strings.TrimSpace(string(one)), " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if len(where) < 5 || len(what) < 3 || !mounted(what[0], strings.Split(what[2], ",")) {
			continue
		}
		rest, below := strings.CutPrefix(path, strings.TrimSuffix(unescape(where[3]), "/"))
		if below && (rest == "" || rest[0] == '/') && !strings.HasPrefix(rest, "/..") {
			mount = unescape(where[4])
			return filepath.Join(mount, rest), mount, true
		}
	}
	return "", "", false
}

func cgroupPath(proc string, line func(id string, controllers []string) bool) (string, bool) {
	b, err := os.ReadFile(filepath.Join(proc, "cgroup"))
	if err != nil {
		return "", false
	}
	for one := range bytes.Lines(b) {
		fields := strings.SplitN(strings.TrimSuffix(string(one), "\n"), ":", 3)
		if len(fields) == 3 && line(fields[0], strings.Split(fields[1], ",")) {
			return fields[2], true
		}
	}
	return "", false
}

// unescape what mountinfo writes as octal.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}
