package spawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Watched is any process whose end is waited for, by a pidfd. It is used by one
// goroutine.
type Watched struct {
	file *os.File
	pid  int
}

// Watch a process, which must not have been reaped yet, or its number may be another's.
func Watch(pid int) (*Watched, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("can't watch process %d: %w", pid, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // then the runtime's poller waits for it
		unix.Close(fd)
		return nil, fmt.Errorf("can't watch process %d: %w", pid, err)
	}
	return &Watched{os.NewFile(uintptr(fd), "pidfd"), pid}, nil
}

// Wait for its end. The error wraps ctx's cause if that ends first.
func (w *Watched) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := w.file.SyscallConn()
	if err == nil {
		err = raw.Read(func(fd uintptr) bool {
			ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, _ := unix.Poll(ended, 0)
			return n > 0
		})
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return fmt.Errorf("can't wait for process %d: %w", w.pid, err)
}

// Exit tells how it ended, which only a child's parent is told; it is reaped then.
func (w *Watched) Exit() (Exit, error) {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return Exit{}, err
	}
	var info unix.Siginfo
	var failed error
	err = raw.Control(func(fd uintptr) {
		for failed = unix.EINTR; errors.Is(failed, unix.EINTR); {
			failed = unix.Waitid(unix.P_PIDFD, int(fd), &info, unix.WEXITED|unix.WNOHANG, nil)
		}
	})
	if err = errors.Join(err, failed); err == nil && info.Signo == 0 {
		err = errors.New("it runs still")
	}
	if err != nil {
		return Exit{}, fmt.Errorf("can't tell how process %d ended: %w", w.pid, err)
	}
	return exitOf(&info), nil
}

// Signal it; that it has ended is no error.
func (w *Watched) Signal(s unix.Signal) error {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.PidfdSendSignal(int(fd), s, nil, 0) })
	if err = errors.Join(err, failed); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("can't signal process %d: %w", w.pid, err)
	}
	return nil
}

// Close ends the watch. If the process was an orphan, a [Reaper] has left it to us, and
// is to look once more.
func (w *Watched) Close() error {
	err := w.file.Close()
	return errors.Join(err, unix.Kill(os.Getpid(), unix.SIGCHLD))
}
