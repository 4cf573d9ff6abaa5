package spawn

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// outputPipe makes a pipe whose writing end is opened anew through /proc: for
// reading too, and in blocking mode, on an open file description of its own.
func outputPipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		return withoutProc(fds)
	}
	defer unix.Close(fds[1])
	both, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fds[1]), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(fds[0])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "output"), os.NewFile(uintptr(both), "output"), nil
}

// withoutProc the writing end is for writing only: a daemon that outlives its holder
// gets EPIPE.
func withoutProc(fds [2]int) (r, w *os.File, err error) {
	if err := unix.SetNonblock(fds[1], false); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "output"), os.NewFile(uintptr(fds[1]), "output"), nil
}

func unread(r *os.File) int {
	raw, err := r.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	raw.Control(func(fd uintptr) {
		if got, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
			n = got
		}
	})
	return n
}
