package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroups is a directory of the unified hierarchy (cgroup v2) in which generations get
// cgroups of their own.
type Cgroups struct{ dir string }

// FindCgroups returns nil where none is delegated to this process: see the package
// comment.
func FindCgroups() *Cgroups {
	dir, _, ok := unifiedDir("/proc/self")
	_, err := os.Stat("/run/systemd/system") // sd_booted(3)
	if !ok || !delegated(dir, err == nil) {
		return nil
	}
	return &Cgroups{dir: dir}
}

// delegated: below dir we may do as we like. The root of the hierarchy, which alone has
// no cgroup.events, is nobody's own; and where systemd is in charge of the machine, being
// root is no leave: it marks what it has delegated (systemd's CGROUP_DELEGATION).
func delegated(dir string, systemd bool) bool {
	for _, file := range []string{dir, filepath.Join(dir, "cgroup.procs")} {
		if unix.Faccessat(unix.AT_FDCWD, file, unix.W_OK, unix.AT_EACCESS) != nil {
			return false
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.events")); err != nil {
		return false
	}
	return !systemd || isMarked(dir, "user.delegate") || isMarked(dir, "trusted.delegate")
}

func isMarked(dir, attribute string) bool {
	value := make([]byte, 8)
	n, err := unix.Getxattr(dir, attribute, value)
	return err == nil && string(value[:n]) == "1"
}

// cgroup is one generation's. A nil one is none, and has no processes.
type cgroup struct{ dir string }

// make one. The name is for people who look, and need not be unique.
func (c *Cgroups) make(name string) (*cgroup, error) {
	name = strings.Map(func(r rune) rune {
		if r <= ' ' || r == '/' || r >= 0x7f {
			return '_'
		}
		return r
	}, name)
	// No name of the kernel's files begins with this word.
	dir, err := os.MkdirTemp(c.dir, "gapless-"+name[:min(len(name), 128)]+"-")
	if err != nil {
		return nil, fmt.Errorf("can't make a cgroup: %w", err)
	}
	return &cgroup{dir: dir}, nil
}

// attr lets a child begin its life in it (clone3(2), CLONE_INTO_CGROUP, Linux 5.7). The
// file is to be closed when it has.
func (c *cgroup) attr(to *syscall.SysProcAttr) (*os.File, error) {
	fd, err := unix.Open(c.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("can't open the cgroup: %w", err)
	}
	to.UseCgroupFD, to.CgroupFD = true, fd
	return os.NewFile(uintptr(fd), c.dir), nil
}

// enter moves a process in, with all its threads.
func (c *cgroup) enter(pid int) error {
	return writeFile(filepath.Join(c.dir, "cgroup.procs"), strconv.Itoa(pid))
}

func writeFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// dirs are the cgroup's own and those that the daemon has made in it, children first.
func (c *cgroup) dirs() []string {
	var all []string
	filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return nil // one that has gone meanwhile has nobody in it
	})
	slices.Reverse(all)
	return all
}

// number is the inode of its directory, by which the kernel names it to those who ask for
// sockets; 0 for none.
func (c *cgroup) number() uint64 {
	var st unix.Stat_t
	if c == nil || unix.Stat(c.dir, &st) != nil {
		return 0
	}
	return st.Ino
}

// pids are those of the processes in it. In a threaded cgroup there are none to be read
// (EOPNOTSUPP), but they are in the one above it as well.
func (c *cgroup) pids() []int {
	if c == nil {
		return nil
	}
	var all []int
	for _, dir := range c.dirs() {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue
		}
		for line := range bytes.FieldsSeq(b) {
			if pid, err := strconv.Atoi(string(line)); err == nil && pid > 0 {
				all = append(all, pid)
			}
		}
	}
	return all
}

// kill sends SIGKILL to all in it, those that are just being forked too. Kernels before
// 5.14 can't, and whoever is in it must be killed one by one.
func (c *cgroup) kill() {
	if c != nil {
		writeFile(filepath.Join(c.dir, "cgroup.kill"), "1")
	}
}

// removeTimeout is for tasks that have ended and are still on their way out of it.
const removeTimeout = time.Second

// remove is for when nobody runs in it. Should it fail, an empty directory stays until
// that of the holder goes.
func (c *cgroup) remove() {
	if c == nil {
		return
	}
	for began, every := time.Now(), 100*time.Microsecond; time.Since(began) < removeTimeout; every *= 2 {
		for _, dir := range c.dirs() {
			unix.Rmdir(dir)
		}
		if _, err := os.Stat(c.dir); errors.Is(err, fs.ErrNotExist) {
			return
		}
		time.Sleep(every)
	}
}
