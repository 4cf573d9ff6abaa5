package spawn

import (
	"math"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

func place(fd, at int) error { return unix.Dup3(fd, at, 0) }

// lastSignal is _NSIG of the kernel's asm/signal.h.
const lastSignal = 64

// defaultSignals: execve(2) leaves a signal alone that is ignored, as whoever
// started the holder (nohup, a shell's background job) may have had it. It is the
// kernel that is asked, for package os/signal can't reach 32 and 34, and would
// swallow a stop signal that comes between its catching it and execve.
func defaultSignals() {
	var action [64]byte // all zero is SIG_DFL without flags, however struct sigaction is laid out
	for s := 1; s <= lastSignal; s++ {
		// KILL and STOP are refused, and never anything but default.
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, lastSignal/8, 0, 0)
	}
}

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
