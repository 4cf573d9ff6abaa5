package bind

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Sizes of ip(7), ipv6(7), and socket(7)'s struct sockaddr_storage, beyond which the
// kernel says EINVAL. An IPv6 address may come without its scope (SIN6_LEN_RFC2133 of
// net/ipv6.h).
const (
	familySize  = 2
	inet4Size   = 16
	inet6Size   = 28
	inet6Short  = 24
	storageSize = 128
)

// parseSockaddr returns the family, and the address if it is one of IP's. zone names an
// interface by its number; the kernel looks at that for link-local addresses only
// (__ipv6_addr_needs_scope_id in net/ipv6.h).
func parseSockaddr(b []byte, zone func(index int) string) (family int, addr netip.AddrPort) {
	if len(b) < familySize {
		return 0, addr
	}
	family = int(binary.NativeEndian.Uint16(b))
	switch {
	case family == unix.AF_INET && len(b) >= inet4Size:
		return family, netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
	case family == unix.AF_INET6 && len(b) >= inet6Short:
		ip := netip.AddrFrom16([16]byte(b[8:24]))
		if scoped := ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || ip.IsInterfaceLocalMulticast(); scoped && !ip.Is4In6() && len(b) >= inet6Size {
			if index := binary.NativeEndian.Uint32(b[24:]); index != 0 {
				ip = ip.WithZone(zone(int(index)))
			}
		}
		return family, netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[2:]))
	}
	return family, addr
}

func zoneName(index int) string {
	if i, err := net.InterfaceByIndex(index); err == nil {
		return i.Name
	}
	return strconv.Itoa(index)
}

// zoneIndex is the way back.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index), nil
	}
	index, err := strconv.ParseUint(zone, 10, 32)
	return uint32(index), err
}

// sockaddr keeps an IPv4 address that came as IPv6 as it is.
func sockaddr(addr netip.AddrPort) (unix.Sockaddr, error) {
	ip, port := addr.Addr(), int(addr.Port())
	if ip.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: ip.As4()}, nil
	}
	if !ip.IsValid() {
		return nil, unix.EAFNOSUPPORT
	}
	zone, err := zoneIndex(ip.Zone())
	if err != nil {
		return nil, unix.ENODEV
	}
	return &unix.SockaddrInet6{Port: port, Addr: ip.As16(), ZoneId: zone}, nil
}
