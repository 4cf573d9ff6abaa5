package bind

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watch receives the calls of all processes under one filter. One goroutine at a time
// calls Next; Close, and the methods of calls, may be called by any.
type Watch struct {
	file *os.File
	raw  syscall.RawConn
	size int // of a notification, for this kernel

	closed atomic.Bool // a raw connection's error does not say so
}

// NewWatch takes the notify fd of [Install] over, also if it fails. No thread waits for
// it, but the runtime's poller.
func NewWatch(notify int) (*Watch, error) {
	w, err := newWatch(notify)
	if err != nil {
		return nil, fmt.Errorf("can't watch for binds: %w", err)
	}
	return w, nil
}

func newWatch(notify int) (*Watch, error) {
	sizes, err := notifSizes()
	if err == nil {
		err = unix.SetNonblock(notify, true) // else os.NewFile does not give it to the poller
	}
	if err != nil {
		unix.Close(notify)
		return nil, err
	}
	w := &Watch{file: os.NewFile(uintptr(notify), "seccomp notify"), size: max(int(sizes.notif), int(unsafe.Sizeof(notification{})))}
	if w.raw, err = w.file.SyscallConn(); err == nil {
		err = w.file.SetReadDeadline(time.Time{}) // fails where nothing polls
	}
	if err != nil {
		w.file.Close()
		return nil, err
	}
	return w, nil
}

// Close ends a Next that waits with an error wrapping [os.ErrClosed]. Calls that wait for an
// answer, and all that follow, fail with ENOSYS if nobody else has the notify fd.
func (w *Watch) Close() error {
	w.closed.Store(true)
	if err := w.file.Close(); err != nil {
		return fmt.Errorf("can't close the watch for binds: %w", err)
	}
	return nil
}

// Next waits for a call; those whose threads have died meanwhile are passed over. The
// error is io.EOF when the last process under the filter has gone, and wraps ctx's cause
// when that ends.
func (w *Watch) Next(ctx context.Context) (*Call, error) {
	release := w.follow(ctx)
	defer release()
	for ctx.Err() == nil {
		n, err := w.receive()
		switch {
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		case ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return nil, fmt.Errorf("can't wait for a bind: %w", err)
		}
		c := w.read(n)
		switch err := c.alive(); {
		case err == nil:
			return c, nil
		case !errors.Is(err, ErrGone):
			return nil, err
		}
	}
	return nil, fmt.Errorf("can't wait for a bind: %w", context.Cause(ctx))
}

// follow has the poller give up with ctx.
func (w *Watch) follow(ctx context.Context) (release func()) {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		w.file.SetReadDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-fired
			w.file.SetReadDeadline(time.Time{})
		}
	}
}

func (w *Watch) receive() (n notification, err error) {
	var failed error
	err = w.raw.Read(func(fd uintptr) (done bool) {
		n, done, failed = w.tryReceive(int(fd))
		return done
	})
	return n, w.explain(errors.Join(err, failed))
}

func (w *Watch) explain(err error) error {
	if err != nil && w.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// tryReceive asks first, since SECCOMP_IOCTL_NOTIF_RECV waits, O_NONBLOCK or not. When
// there is something it does not, for nobody else receives: a call that dies in between
// leaves ENOENT.
func (w *Watch) tryReceive(fd int) (n notification, done bool, err error) {
	for {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, err := unix.Poll(ready, 0)
		switch is := ready[0].Revents; {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return n, true, err
		case is&unix.POLLIN != 0:
		case is&unix.POLLHUP != 0:
			return n, true, io.EOF
		case is != 0:
			return n, true, fmt.Errorf("it is no notify fd (poll says %#x)", is)
		default:
			return n, false, nil
		}
		// Words, for the kernel wants it aligned; zero, or it is EINVAL.
		buffer := make([]uint64, (w.size+7)/8)
		err = ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&buffer[0]))
		if !errors.Is(err, unix.ENOENT) {
			return *(*notification)(unsafe.Pointer(&buffer[0])), true, err
		}
	}
}

// control is an ioctl; a thread that has gone is [ErrGone].
func (w *Watch) control(request uintptr, arg unsafe.Pointer) error {
	var failed error
	err := w.raw.Control(func(fd uintptr) { failed = ioctl(int(fd), request, arg) })
	if errors.Is(failed, unix.ENOENT) {
		return ErrGone
	}
	return w.explain(errors.Join(err, failed))
}
