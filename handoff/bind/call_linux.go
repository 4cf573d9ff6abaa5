package bind

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Continue has the kernel do what the daemon asked for. By then the daemon's memory may
// hold another address than Addr. That the thread has gone is no error.
func (c *Call) Continue() error {
	return c.send(response{flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

// Answer has the daemon's call return: success if errno is 0. That the thread has gone
// is no error.
func (c *Call) Answer(errno unix.Errno) error { return c.send(response{error: -int32(errno)}) }

func (c *Call) send(r response) error {
	if !c.answered.CompareAndSwap(false, true) {
		return ErrAnswered
	}
	r.id = c.id
	if err := c.watch.control(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)); err != nil && !errors.Is(err, ErrGone) {
		return fmt.Errorf("can't answer a %s of process %d: %w", c.Op, c.PID, err)
	}
	return nil
}

// alive is ErrGone if nobody waits for the answer any more: then what was read by the
// thread's number may be another's.
func (c *Call) alive() error {
	id := c.id
	if err := c.watch.control(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id)); err != nil {
		return fmt.Errorf("can't find the %s of process %d: %w", c.Op, c.PID, err)
	}
	return nil
}

// Replace puts a duplicate of with in the place of the daemon's descriptor: same number,
// close-on-exec as the daemon had it, and O_NONBLOCK too, which then is with's for
// everybody who has it. with stays the caller's. like, if not nil, is the socket that
// must still be at that number; [CarryOptions] brings over what else it had. The call
// still wants its answer.
//
// The error wraps [ErrNoAccess] if the daemon's flags can't be read, [ErrGone], or
// [ErrMoved]; nothing has been replaced then.
func (c *Call) Replace(with int, like *Socket) error {
	if err := c.replace(with, like); err != nil {
		return fmt.Errorf("can't replace fd %d of process %d: %w", c.FD, c.PID, err)
	}
	return nil
}

func (c *Call) replace(with int, like *Socket) error {
	flags, err := c.flags()
	if err == nil && like != nil {
		err = c.stillAt(like.Inode)
	}
	if gone := c.alive(); errors.Is(gone, ErrGone) {
		return ErrGone
	}
	if err != nil {
		return err
	}
	if err := setNonblock(with, flags&unix.O_NONBLOCK != 0); err != nil {
		return err
	}
	add := addFD{id: c.id, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, srcFD: uint32(with), newFD: uint32(c.FD), newFDFlags: uint32(flags & unix.O_CLOEXEC)}
	err = c.watch.control(unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add))
	if errors.Is(err, unix.ESRCH) { // it died while it was to take it
		return ErrGone
	}
	return err
}

func setNonblock(fd int, on bool) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 == on {
		return err
	}
	return unix.SetNonblock(fd, on)
}
