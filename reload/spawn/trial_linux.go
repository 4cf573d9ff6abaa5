package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// TryCgroup makes a cgroup as a generation gets one, and removes it. kills tells whether
// all in it can be killed at once (Linux 5.14). The error wraps [ErrNotDelegated] with
// the reason where there is none of one's own.
func TryCgroup() (dir string, kills bool, err error) {
	own := FindCgroups()
	if own == nil {
		return "", false, fmt.Errorf("%w: %s", ErrNotDelegated, notDelegated())
	}
	c, err := own.make("doctor")
	if err != nil {
		return own.dir, false, err
	}
	defer c.remove()
	_, err = os.Stat(filepath.Join(c.dir, "cgroup.kill"))
	return own.dir, err == nil, nil
}

// notDelegated is the reason of [FindCgroups], in words.
func notDelegated() string {
	dir, mount, ok := unifiedDir("/proc/self")
	switch {
	case !ok:
		return "there is no cgroup v2 here, or this process's is not below what is mounted"
	case dir == mount:
		return "this process is in the root of the hierarchy, " + dir
	case unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK, unix.AT_EACCESS) != nil:
		return dir + " can't be written to"
	}
	return dir + " is not marked as delegated by systemd, or not all its own"
}

// TryDescriptors opens n more files at once.
func TryDescriptors(n int) error {
	var open []int
	defer func() {
		for _, fd := range open {
			unix.Close(fd)
		}
	}()
	for range n {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			return fmt.Errorf("can't open %d more files: %w", n, err)
		}
		open = append(open, fd)
	}
	return nil
}

// Descriptors is how many files this process may have open.
func Descriptors() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("can't read the limit of open files: %w", err)
	}
	return limit.Cur, nil
}

// FindTasks reads the limit (pids.max) of this process's cgroup, or of the one above it
// with the least room. It is false where there is none.
func FindTasks() (Tasks, bool) {
	if t, ok := tasksOf(unifiedDir("/proc/self")); ok {
		return t, true
	}
	return tasksOf(cgroupDir("/proc/self", func(_ string, controllers []string) bool { return slices.Contains(controllers, "pids") },
		func(fstype string, options []string) bool {
			return fstype == "cgroup" && slices.Contains(options, "pids")
		}))
}

func tasksOf(dir, mount string, ok bool) (least Tasks, found bool) {
	for ok {
		limit, limited := readNumber(filepath.Join(dir, "pids.max"))
		used, known := readNumber(filepath.Join(dir, "pids.current"))
		if limited && known && (!found || limit-min(used, limit) < least.Limit-min(least.Used, least.Limit)) {
			least, found = Tasks{Limit: limit, Used: used}, true
		}
		if dir == mount || dir == "/" || dir == "." {
			break
		}
		dir = filepath.Dir(dir)
	}
	return least, found
}

// FindPlace looks around.
func FindPlace() Place {
	p := Place{Container: container(), IsFirst: os.Getpid() == 1, Unit: os.Getenv("INVOCATION_ID") != "", UID: os.Geteuid()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		p.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/1/comm"); err == nil {
		p.First = string(bytes.TrimSpace(b))
	}
	_, err := os.Stat("/run/systemd/system")
	p.Systemd = err == nil
	return p
}

// container is found as systemd-detect-virt(1) does, by the marks that its maker leaves,
// else by the namespace of pids.
func container() string {
	for _, mark := range []struct{ file, name string }{{"/.dockerenv", "docker"}, {"/run/.containerenv", "podman"}} {
		if _, err := os.Stat(mark.file); err == nil {
			return mark.name
		}
	}
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		return "kubernetes"
	}
	if b, err := os.ReadFile("/run/systemd/container"); err == nil {
		return strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/1/environ"); err == nil {
		for entry := range bytes.SplitSeq(b, []byte{0}) {
			if name, ok := bytes.CutPrefix(entry, []byte("container=")); ok && len(name) > 0 {
				return string(name)
			}
		}
	}
	if name := containerOfCgroup(); name != "" {
		return name
	}
	return containerOfNamespace()
}

func containerOfCgroup() string {
	b, err := os.ReadFile("/proc/1/cgroup")
	if err != nil {
		return ""
	}
	for _, mark := range []string{"kubepods", "docker", "libpod", "containerd", "lxc"} {
		if bytes.Contains(b, []byte(mark)) {
			return mark
		}
	}
	return ""
}

// firstNamespace is PROC_PID_INIT_INO of linux/proc_ns.h.
const firstNamespace = "pid:[4026531836]"

func containerOfNamespace() string {
	of, err := os.Readlink("/proc/self/ns/pid")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ""
	case err == nil && of != firstNamespace:
		return "a pid namespace of its own"
	}
	return ""
}
