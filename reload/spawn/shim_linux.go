package spawn

import (
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func place(fd, at int) error { return unix.Dup3(fd, at, 0) }

// pidfsMagic is PIDFS_MAGIC of linux/magic.h: only there is a pidfd's inode number
// the process's own (Linux 6.9).
const pidfsMagic = 0x50494446

// pidfdID is what LISTEN_PIDFDID holds: the inode number of a pidfd of the process
// (sd_listen_fds(3), systemd 259). Older kernels have none.
func pidfdID(pid int) (uint64, bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var where unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(fd, &where) != nil || where.Type != pidfsMagic || unix.Fstat(fd, &st) != nil {
		return 0, false
	}
	return st.Ino, true
}

// closeOnExecFrom marks all descriptors from first on; kernels before 5.11 can't do
// so at once.
func closeOnExecFrom(first int) error {
	if err := unix.CloseRange(uint(first), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err == nil {
		return nil
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
