package handoff

import "golang.org/x/sys/unix"

// set gives a socket that is to be bound what belongs to its key beside the address.
func (k Key) set(fd int) []error {
	var set []error
	if k.Addr.Addr().Is6() {
		set = append(set, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, number(k.V6Only)))
	}
	if k.Device != 0 {
		set = append(set, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, k.Device))
	}
	return set
}
