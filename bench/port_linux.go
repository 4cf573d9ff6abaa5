package bench

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// choosePortLate lets connect choose the local port, when the destination is
// known, instead of bind: else a source address has 28,000 connections to all
// destinations together (ip(7), IP_BIND_ADDRESS_NO_PORT).
func choosePortLate(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		// Without it all still works, on fewer ports.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
}
