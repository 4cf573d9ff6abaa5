package bind

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// InEpoll tells whether a process waits for a socket by epoll(7) already: one that is
// put in its place would not be waited for. The registration is of the socket, whatever
// number it had then; fd is what kernels before 4.13 are asked by, which do not tell the
// inode. The error may wrap [ErrNoAccess].
func InEpoll(pid int, inode uint64, fd int) (bool, error) {
	found, err := inEpoll(pid, inode, fd)
	if refused(err) {
		err = noAccess(pid, err)
	}
	if err != nil {
		return false, fmt.Errorf("can't look into the epoll sets of process %d: %w", pid, err)
	}
	return found, nil
}

func inEpoll(pid int, inode uint64, fd int) (bool, error) {
	dev, err := socketDevice()
	if err != nil {
		return false, err
	}
	at, err := unix.Open(procFile(pid, "fd"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	dir := os.NewFile(uintptr(at), "fd")
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		b, err := epollSet(pid, at, name)
		if err != nil || registered(b, inode, dev, fd) {
			return err == nil, err
		}
	}
	return false, nil
}

// epollSet is the fdinfo of a descriptor in the directory at, or nothing if it is no epoll
// set, or none any more. Root may list what it may not look into. A path from the root
// costs several times as much, and there may be thousands.
func epollSet(pid, at int, fd string) ([]byte, error) {
	var to [64]byte // a longer link is none
	n, err := unix.Readlinkat(at, fd, to[:])
	if err == nil && string(to[:n]) != "anon_inode:[eventpoll]" {
		return nil, nil
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(procFile(pid, "fdinfo/"+fd))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// registered looks through an epoll set's fdinfo, of which a line is
//
//	tfd:        5 events:       19 data: …  pos:0 ino:2d9c7 sdev:8
//
// (proc_pid_fdinfo(5); numbers behind ino and sdev are hexadecimal).
func registered(fdinfo []byte, inode, dev uint64, fd int) bool {
	for line := range bytes.Lines(fdinfo) {
		fields := strings.Fields(strings.ReplaceAll(string(line), ":", ": "))
		value := map[string]string{}
		for i := 0; i+1 < len(fields); i += 2 {
			value[fields[i]] = fields[i+1]
		}
		tfd, ok := value["tfd:"]
		if !ok {
			continue
		}
		if _, told := value["ino:"]; !told {
			if tfd == strconv.Itoa(fd) {
				return true
			}
			continue
		}
		if value["ino:"] == strconv.FormatUint(inode, 16) && value["sdev:"] == strconv.FormatUint(dev, 16) {
			return true
		}
	}
	return false
}

// socketDevice is the file system of all sockets, as the kernel writes it within itself
// (MKDEV of linux/kdev_t.h).
func socketDevice() (uint64, error) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	var st unix.Stat_t
	if err := unix.Fstat(s, &st); err != nil {
		return 0, err
	}
	return uint64(unix.Major(uint64(st.Dev)))<<20 | uint64(unix.Minor(uint64(st.Dev))), nil
}
