//go:build !linux

package bench

import "syscall"

// choosePortLate does nothing where the kernel has no such option.
func choosePortLate(_, _ string, _ syscall.RawConn) error { return nil }
