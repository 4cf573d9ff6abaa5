package bind

import (
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzParseSockaddr: whatever a daemon says, what is taken for an address is one, and
// comes back as the same.
func FuzzParseSockaddr(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{unix.AF_INET, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		family, addr := parseSockaddr(b, strconv.Itoa)
		is := family == unix.AF_INET && len(b) >= inet4Size || family == unix.AF_INET6 && len(b) >= inet6Short
		if addr.Addr().IsValid() != is {
			t.Fatalf("family %d, %d bytes: %s", family, len(b), addr)
		}
		if !is {
			return
		}
		sa, err := sockaddr(addr)
		if err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			is = family == unix.AF_INET && sa.Addr == [4]byte(b[4:8]) && sa.Port == int(b[2])<<8|int(b[3])
		case *unix.SockaddrInet6:
			is = family == unix.AF_INET6 && sa.Addr == [16]byte(b[8:24]) && sa.Port == int(b[2])<<8|int(b[3])
		}
		if !is {
			t.Fatalf("% x became %+v", b, sa)
		}
	})
}
