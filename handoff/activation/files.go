package activation

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// File is a descriptor that this process was started with.
type File struct {
	Name string // "" if the manager gives no names
	FD   int
}

// Files is [Inherit] for who manages sockets himself: the bare descriptors, of any
// kind, which belong to the caller from then on. They are CLOEXEC, and nothing else
// is changed. The variables are removed, whatever comes of it.
func Files() ([]File, error) {
	n, names, err := processEnvironment().files()
	if err = errors.Join(err, clearEnvironment()); err != nil {
		closeListeners(n)
		return nil, fmt.Errorf("can't inherit files: %w", err)
	}
	var files []File
	for fd := firstFD; fd < firstFD+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, syscall.FD_CLOEXEC); err != nil {
			return files, fmt.Errorf("can't inherit fd %d: %w", fd, err) // the count lies
		}
		f := File{FD: fd}
		if names != nil {
			f.Name = names[fd-firstFD]
		}
		files = append(files, f)
	}
	return files, nil
}
