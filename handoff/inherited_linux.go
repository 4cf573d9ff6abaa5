package handoff

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// traits are what a socket of ours must have in common with the inherited one to be
// in one group with it (inet_reuseport_add_sock in net/ipv4/inet_hashtables.c).
type traits struct {
	v6only    bool
	device    int    // SO_BINDTODEVICE, by index
	uid       uint32 // of the socket: who called socket(2)
	mptcp     bool
	reusePort int // as it came
	options   Options
}

func (in *Inherited) inspect() error {
	var st unix.Stat_t
	if err := unix.Fstat(in.fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("it is no socket; this version holds listening tcp sockets only")
	}
	in.inode, in.uid = st.Ino, st.Uid
	if err := in.checkKind(); err != nil {
		return err
	}
	if err := in.readAddr(); err != nil {
		return err
	}
	return in.readTraits()
}

func (in *Inherited) checkKind() error {
	domain, err1 := in.get(unix.SOL_SOCKET, unix.SO_DOMAIN)
	kind, err2 := in.get(unix.SOL_SOCKET, unix.SO_TYPE)
	protocol, err3 := in.get(unix.SOL_SOCKET, unix.SO_PROTOCOL)
	listening, err4 := in.get(unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return fmt.Errorf("can't read what it is: %w", err)
	}
	in.mptcp = protocol == unix.IPPROTO_MPTCP
	ip := domain == unix.AF_INET || domain == unix.AF_INET6
	switch {
	case domain == unix.AF_UNIX:
		return errors.New("it is a unix socket; this version holds listening tcp sockets only")
	case !ip:
		return fmt.Errorf("it is a socket of address family %d; this version holds listening tcp sockets only", domain)
	case kind == unix.SOCK_DGRAM:
		return errors.New("it is a udp socket; this version holds listening tcp sockets only")
	case protocol != unix.IPPROTO_TCP && !in.mptcp:
		return fmt.Errorf("it is a socket of protocol %d; this version holds listening tcp sockets only", protocol)
	case listening == 0:
		return errors.New("it is one connection and does not listen; with systemd, the socket unit needs Accept=no")
	}
	return nil
}

func (in *Inherited) get(level, name int) (int, error) {
	return unix.GetsockoptInt(in.fd, level, name)
}

func (in *Inherited) readAddr() (err error) {
	if in.addr, err = boundTo(in.fd); err != nil {
		return err
	}
	sa, err := unix.Getsockname(in.fd)
	if six, ok := sa.(*unix.SockaddrInet6); ok && six.ZoneId != 0 {
		in.addr = netip.AddrPortFrom(in.addr.Addr().WithZone(zoneName(int(six.ZoneId))), in.addr.Port())
	}
	return err
}

func zoneName(index int) string {
	if i, err := net.InterfaceByIndex(index); err == nil {
		return i.Name
	}
	return strconv.Itoa(index)
}

// readTraits: what a kernel does not know is not set.
func (in *Inherited) readTraits() error {
	if in.addr.Addr().Is6() {
		only, err := in.get(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if err != nil {
			return fmt.Errorf("can't read its options: %w", err)
		}
		in.v6only = only != 0
	}
	in.device, _ = in.get(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	in.reusePort, _ = in.get(unix.SOL_SOCKET, unix.SO_REUSEPORT)
	// Of these two an endpoint must know itself.
	if seconds, err := in.get(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT); err == nil {
		in.options.DeferAccept = time.Duration(seconds) * time.Second
	}
	if _, limit, err := queue(in.fd); err == nil {
		in.options.Backlog = limit
	}
	return nil
}

// prepare gives a socket of ours what the inherited one has, before bind.
func (in *Inherited) prepare(fd int) []error {
	set := in.key().set(fd)
	if uid := in.uid; uid != uint32(os.Geteuid()) {
		set = append(set, unix.Fchown(fd, int(uid), -1))
	}
	return append(set, CarryOptions(in.fd, fd))
}
