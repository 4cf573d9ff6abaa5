package bind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TrialDaemon is what the process does that [Try] watches: it binds two sockets of its own
// to a free port of 127.0.0.1, without listening, and returns what to exit with, 0 if both
// are bound as it sees them. It takes no notice of the filter that it is under.
func TrialDaemon() int {
	for i := range 2 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err == nil {
			err = bindTrial(fd)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return i + 1
		}
	}
	return 0
}

func bindTrial(fd int) error {
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: trialAddr.As4()}); err != nil {
		return fmt.Errorf("can't bind: %w", err)
	}
	at, err := unix.Getsockname(fd)
	if four, ok := at.(*unix.SockaddrInet4); err != nil || !ok || four.Port == 0 {
		return fmt.Errorf("can't find where it is bound: %v, %w", at, err)
	}
	return nil
}

// Try serves both binds of a [TrialDaemon] that is under w's filter: the first by binding
// a duplicate of its socket, if one can be had, the second by putting a socket in the
// place of the daemon's. It is an error if they don't come before ctx ends. The watch
// stays the caller's.
func Try(ctx context.Context, w *Watch) (Access, error) {
	var a Access
	c, err := w.Next(ctx)
	if err != nil {
		return a, fmt.Errorf("can't try delivery by bind: %w", err)
	}
	a.Memory, a.Duplicate = c.tryMemory(), c.tryDuplicate()
	if err := c.settle(a.Duplicate); err != nil {
		return a, err
	}
	if c, err = w.Next(ctx); err != nil {
		return a, fmt.Errorf("can't try delivery by bind: %w", err)
	}
	a.Replace = c.tryReplace()
	return a, c.settle(a.Replace)
}

// settle: what could not be done for the daemon, it does itself.
func (c *Call) settle(failed error) error {
	if failed != nil {
		return c.Continue()
	}
	return c.Answer(0)
}

func (c *Call) tryMemory() error {
	if c.Unread == nil && c.Addr != netip.AddrPortFrom(trialAddr, 0) {
		return fmt.Errorf("can't read the address of a bind: it says %s", c.Addr)
	}
	return c.Unread
}

func (c *Call) tryDuplicate() error {
	s, err := c.Socket()
	if err != nil {
		return err
	}
	defer s.Close()
	if errno := s.Bind(netip.AddrPortFrom(trialAddr, 0)); errno != 0 {
		return fmt.Errorf("can't bind a duplicate of the daemon's socket: %w", errno)
	}
	return nil
}

// tryReplace asks first what must be known of a socket that can't be duplicated.
func (c *Call) tryReplace() error {
	if c.Unread != nil {
		return c.Unread
	}
	if tcp, err := c.IsTCP(); err != nil {
		return err
	} else if !tcp {
		return errors.New("can't tell that the daemon's socket is of TCP")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return fmt.Errorf("can't make a socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: trialAddr.As4()}); err != nil {
		return fmt.Errorf("can't bind: %w", err)
	}
	return c.Replace(fd, nil)
}

var trialAddr = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Filtered is how many seccomp filters this process is under already, such as those of a
// container's profile; -1 if only that there are some is known (Linux before 5.9, or no
// /proc). A profile may forbid what is needed here, and a filter that somebody is notified
// by rules out another one.
func Filtered() int {
	if s, err := os.ReadFile("/proc/thread-self/status"); err == nil {
		if n, ok := statusNumber(s, "Seccomp_filters:"); ok {
			return n
		}
	}
	if mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err == nil && mode == 0 {
		return 0
	}
	return -1
}

func statusNumber(status []byte, key string) (int, bool) {
	for line := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(line, []byte(key)); ok {
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			return n, err == nil
		}
	}
	return 0, false
}

// NoNewPrivs tells whether it is set on this process, by whoever started it.
func NoNewPrivs() bool {
	on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && on == 1
}

// Yama is kernel.yama.ptrace_scope (Documentation/admin-guide/LSM/Yama.rst), 0 where the
// kernel has none.
func Yama() int { return yamaScope() }

// Of linux/io_uring.h.
const (
	opBind        = 56 // IORING_OP_BIND, Linux 6.11
	registerProbe = 8  // IORING_REGISTER_PROBE
	opSupported   = 1  // IO_URING_OP_SUPPORTED
	probeOps      = 64
)

// BindsUnseen tells whether a daemon could bind by io_uring, which no filter sees, by
// asking a ring of its own (io_uring_register(2)).
func BindsUnseen() bool {
	var params [120]byte // struct io_uring_params
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return false
	}
	defer unix.Close(int(ring))
	var probe struct { // struct io_uring_probe
		last, count uint8
		_           [14]byte
		ops         [probeOps]struct {
			op, _ uint8
			flags uint16
			_     uint32
		}
	}
	_, _, errno = unix.Syscall6(unix.SYS_IO_URING_REGISTER, ring, registerProbe, uintptr(unsafe.Pointer(&probe)), probeOps, 0, 0)
	return errno == 0 && probe.last >= opBind && probe.ops[opBind].flags&opSupported != 0
}
