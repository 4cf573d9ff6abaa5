package handoff

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tcpSocket is plain TCP: an MPTCP socket, as Go's net.Listen makes, refuses a
// steering program.
func tcpSocket(family int) (int, error) {
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
}

func accept(fd int) (int, bool, error) {
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case err == nil:
			return c, true, nil
		case errors.Is(err, unix.EAGAIN):
			return -1, false, nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			continue
		}
		return -1, false, fmt.Errorf("can't accept: %w", err)
	}
}

// listen with a socket that does not yet, or not any more. Where it was shut down
// twice, by two of a daemon's processes or by one and by us, the second time is
// remembered (inet_shutdown in net/ipv4/af_inet.c), and what is accepted from it would be
// shut down from birth. Disconnecting it (connect(2), AF_UNSPEC) forgets that.
func listen(fd, backlog int) error {
	none := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none))
	if errno != 0 {
		return fmt.Errorf("can't disconnect it: %w", errno)
	}
	return unix.Listen(fd, backlog)
}

// tcpListen is TCP_LISTEN of net/tcp_states.h.
const tcpListen = 10

func isListening(fd int) (bool, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false, fmt.Errorf("can't read a listener's state: %w", err)
	}
	return info.State == tcpListen, nil
}

func queue(fd int) (waiting, limit int, err error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0, fmt.Errorf("can't read a listener's queue: %w", err)
	}
	if info.State != tcpListen {
		return 0, 0, nil
	}
	return int(info.Unacked), int(info.Sacked), nil
}

// somaxconn is the most that the kernel lets wait in one listener.
func somaxconn() int {
	b, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return unix.SOMAXCONN
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n <= 0 {
		return unix.SOMAXCONN
	}
	return n
}

// deferAccept sets how many seconds a connection may wait for its first byte
// before it is handed to accept(2); 0 hands it over at once.
func deferAccept(fd, seconds int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds)
}

// deferredBy is how long, in seconds, a socket defers what has sent nothing.
func deferredBy(fd int) int {
	seconds, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
	if err != nil {
		return 0
	}
	return seconds
}
