package activation

import (
	"os"

	"golang.org/x/sys/unix"
)

// pidfdID is the number that tells this process from any other that has had or
// will have its pid: the inode of its pidfd, on kernels with pidfs (6.9 on).
func pidfdID() (uint64, bool) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	var st unix.Stat_t
	// Before pidfs all pidfds were one anonymous inode, which tells nothing.
	if unix.Fstatfs(fd, &fs) != nil || uint64(fs.Type) != unix.PID_FS_MAGIC || unix.Fstat(fd, &st) != nil {
		return 0, false
	}
	return st.Ino, true
}
