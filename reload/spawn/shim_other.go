//go:build !linux

package spawn

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func place(fd, at int) error { return unix.Dup2(fd, at) }

func pidfdID(int) (uint64, bool) { return 0, false }

// closeOnExecFrom tries every number that this process may use.
func closeOnExecFrom(first int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	for fd := first; fd < int(min(limit.Cur, 65536)); fd++ {
		unix.CloseOnExec(fd)
	}
	return nil
}

// defaultSignals: execve(2) gives a signal that is caught its default action, and
// leaves one alone that is ignored.
func defaultSignals() { signal.Notify(make(chan os.Signal, 1)) }
