//go:build !linux

package handoff

import "golang.org/x/sys/unix"

func (k Key) set(fd int) []error {
	if !k.Addr.Addr().Is6() {
		return nil
	}
	return []error{unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, number(k.V6Only))}
}
