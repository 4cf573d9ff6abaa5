package bind

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// killable lets a thread whose call has been received wait on whatever signals come.
const killable = unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV

// Install puts the filter on the calling thread, for ever. The goroutine must have
// called [runtime.LockOSThread], and is to execve from that very thread; the filter is
// the new program's then. notify is close-on-exec and the caller's.
//
// Without CAP_SYS_ADMIN the kernel wants no_new_privs first, which takes the right of
// set-user-ID programs (sudo, ping) from the daemon and all its children: noNewPrivs
// tells that this call has set it. Where that would be for nothing, it is not set.
//
// The error is an [*UnavailableError], and the thread is as it was before.
func Install() (notify int, noNewPrivs bool, err error) { return install(killable) }

func install(flags uintptr) (int, bool, error) {
	if err := supported(); err != nil {
		return -1, false, err
	}
	notify, err := setFilter(flags)
	if !errors.Is(err, unix.EACCES) {
		return notify, false, explain(err)
	}
	if err := elsewhere(func() error { return tryOut(flags) }); err != nil {
		return -1, false, err
	}
	return installUnprivileged(flags)
}

func installUnprivileged(flags uintptr) (int, bool, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, false, &UnavailableError{Reason: "it needs CAP_SYS_ADMIN, or no_new_privs, which can't be set: " + err.Error(), Err: err}
	}
	notify, err := setFilter(flags)
	return notify, true, explain(err)
}

// tryOut is called on a thread that will end.
func tryOut(flags uintptr) error {
	notify, _, err := installUnprivileged(flags)
	if err == nil {
		unix.Close(notify)
	}
	return err
}

// elsewhere runs f on a thread that ends with it, and waits. The main thread never ends
// in Go, and what /proc says of a process is what it says of that thread: so it is left
// alone.
func elsewhere(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the runtime ends the thread with the goroutine
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		done <- elsewhere(f) // not here, since this goroutine has the main thread
		runtime.UnlockOSThread()
	}()
	return <-done
}

// setFilter returns the notify fd, or the bare errno.
func setFilter(flags uintptr) (int, error) {
	arch, _ := auditArch()
	p := program(arch)
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	notify, err := seccomp(unix.SECCOMP_SET_MODE_FILTER, flags, unsafe.Pointer(&prog))
	if errors.Is(err, unix.EINVAL) && flags&killable != 0 {
		notify, err = seccomp(unix.SECCOMP_SET_MODE_FILTER, flags&^killable, unsafe.Pointer(&prog))
	}
	if err != nil {
		return -1, err
	}
	return notify, nil
}

// supported asks what can be known without a filter. With one it would be too late: it
// can't be taken off.
func supported() error {
	if _, ok := auditArch(); !ok {
		return &UnavailableError{Reason: "it is not made for " + runtime.GOARCH, Err: errors.ErrUnsupported}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return explain(err)
	}
	if release := unix.ByteSliceToString(u.Release[:]); !hasAddFD(release) {
		return &UnavailableError{Reason: "it needs Linux 5.9, and this is " + release, Err: unix.ENOSYS}
	}
	_, err := notifSizes()
	return explain(err)
}

// hasAddFD tells whether a kernel has SECCOMP_IOCTL_NOTIF_ADDFD and POLLHUP; both came
// with 5.9, SECCOMP_USER_NOTIF_FLAG_CONTINUE with 5.5 (seccomp_unotify(2)).
func hasAddFD(release string) bool {
	parts := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return false
	}
	major, errMajor := strconv.Atoi(parts[0])
	minor, errMinor := strconv.Atoi(parts[1])
	return errMajor == nil && errMinor == nil && (major > 5 || major == 5 && minor >= 9)
}

func explain(err error) error {
	var reason string
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		reason = "this process is under a seccomp filter already that somebody is notified by (a container's manager, or another gapless), and the kernel takes only one"
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL):
		reason = "this kernel has no seccomp notification"
	case errors.Is(err, unix.EPERM):
		reason = "a seccomp profile forbids seccomp(2)"
	default:
		reason = "can't set a seccomp filter: " + err.Error()
	}
	return &UnavailableError{Reason: reason, Err: err}
}

// probeTimeout bounds what takes less than a millisecond.
const probeTimeout = 10 * time.Second

// Probe tells whether this process could get a filter, and answer by it, with the error
// of [Install] if not. It tries so on a thread that ends with the call, and that is not
// the main one: whoever looks at this process later sees no filter. Any goroutine may
// call it.
func Probe() error {
	watches, bound := make(chan *Watch, 1), make(chan error, 1)
	go func() {
		defer close(watches)
		bound <- elsewhere(func() error { return bindUnderFilter(watches) })
	}()
	w, ok := <-watches
	if !ok {
		return <-bound
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	call, err := w.Next(ctx)
	if err == nil {
		err = call.Answer(probeErrno)
	}
	w.Close() // whatever waits gets ENOSYS
	if got := <-bound; err == nil && !errors.Is(got, probeErrno) {
		err = got
	}
	if err == nil {
		return nil
	}
	return &UnavailableError{Reason: fmt.Sprintf("seccomp notification does not work here: %v", err), Err: err}
}

// probeErrno is nothing that bind(2) says.
const probeErrno = unix.EXDEV

func bindUnderFilter(watches chan<- *Watch) error {
	if err := supported(); err != nil {
		return err
	}
	notify, err := setFilter(killable)
	if errors.Is(err, unix.EACCES) {
		notify, _, err = installUnprivileged(killable)
	} else {
		err = explain(err)
	}
	if err != nil {
		return err
	}
	w, err := NewWatch(notify)
	if err != nil {
		return err
	}
	watches <- w
	return unix.Bind(-1, &unix.SockaddrInet4{})
}
