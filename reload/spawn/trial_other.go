//go:build !linux

package spawn

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// TryCgroup returns an error wrapping [errors.ErrUnsupported].
func TryCgroup() (dir string, kills bool, err error) {
	return "", false, fmt.Errorf("this system has no cgroups: %w", errors.ErrUnsupported)
}

// TryDescriptors is not tried here.
func TryDescriptors(int) error { return nil }

// Descriptors is how many files this process may have open.
func Descriptors() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("can't read the limit of open files: %w", err)
	}
	return uint64(limit.Cur), nil
}

// FindTasks finds no limit.
func FindTasks() (Tasks, bool) { return Tasks{}, false }

// FindPlace knows little.
func FindPlace() Place {
	var u unix.Utsname
	p := Place{IsFirst: os.Getpid() == 1, UID: os.Geteuid()}
	if unix.Uname(&u) == nil {
		p.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return p
}
