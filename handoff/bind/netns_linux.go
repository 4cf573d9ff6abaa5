package bind

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// SameNetns tells whether a bind is in this process's own network namespace; one in
// another is about other addresses, whatever they look like. A socket stays in the one
// that it was made in, so s is asked where it is not nil and the kernel can tell
// (SO_NETNS_COOKIE, Linux 5.14), else the thread (then the error may wrap [ErrNoAccess]).
func (c *Call) SameNetns(s *Socket) (bool, error) {
	same, err := c.sameNetns(s)
	if err != nil {
		return false, fmt.Errorf("can't find the network namespace of process %d: %w", c.PID, err)
	}
	return same, nil
}

func (c *Call) sameNetns(s *Socket) (bool, error) {
	if s != nil && s.Netns != 0 {
		if own, err := netnsCookie(); err == nil {
			return own == s.Netns, nil
		}
	}
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return false, err
	}
	theirs, err := os.Readlink(procFile(c.TID, "ns/net"))
	if gone := c.alive(); errors.Is(gone, ErrGone) {
		return false, ErrGone
	}
	if refused(err) {
		return false, c.noAccess(err)
	}
	return own == theirs, err
}

// netnsCookie of this process.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}
