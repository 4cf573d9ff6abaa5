package bind

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What follows is of linux/seccomp.h, and explained in seccomp_unotify(2).

type notifSize struct{ notif, response, data uint16 }

type data struct {
	nr                 int32
	arch               uint32
	instructionPointer uint64
	args               [6]uint64
}

type notification struct {
	id    uint64
	pid   uint32 // a thread's
	flags uint32
	data  data
}

type response struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

type addFD struct {
	id         uint64
	flags      uint32
	srcFD      uint32
	newFD      uint32
	newFDFlags uint32
}

func seccomp(op, flags uintptr, arg unsafe.Pointer) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_SECCOMP, op, flags, uintptr(arg))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// notifSizes are the kernel's own, which may be more than we know of: it writes as much.
func notifSizes() (notifSize, error) {
	var s notifSize
	_, err := seccomp(unix.SECCOMP_GET_NOTIF_SIZES, 0, unsafe.Pointer(&s))
	return s, err
}

// ioctl repeats what a signal has interrupted (Go sends itself some).
func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch {
		case errno == 0:
			return nil
		case !errors.Is(errno, unix.EINTR):
			return errno
		}
	}
}
