package handoff

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

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
