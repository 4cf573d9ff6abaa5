package bind

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
)

// Socket takes a duplicate of the daemon's socket (pidfd_getfd(2)), which is the
// caller's to close. The error wraps [ErrNoAccess] with the reason for people,
// [ErrGone], or what the kernel would say to the call itself, if it continued: EBADF,
// ENOTSOCK.
func (c *Call) Socket() (*Socket, error) {
	s, err := c.socket()
	if err != nil {
		return nil, fmt.Errorf("can't duplicate fd %d of process %d: %w", c.FD, c.PID, err)
	}
	return s, nil
}

func (c *Call) socket() (*Socket, error) {
	fd, err := c.duplicate()
	if gone := c.alive(); errors.Is(gone, ErrGone) {
		if err == nil {
			unix.Close(fd)
		}
		return nil, ErrGone
	}
	if err != nil {
		return nil, err
	}
	s := &Socket{FD: fd}
	if err := s.inspect(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

// duplicate asks by thread, for that may have descriptors of its own, and its process
// may go on without the main one; before Linux 6.9 only a process can be asked.
func (c *Call) duplicate() (int, error) {
	const thread = unix.O_EXCL // PIDFD_THREAD of linux/pidfd.h
	pidfd, err := unix.PidfdOpen(c.TID, thread)
	if errors.Is(err, unix.EINVAL) {
		pidfd, err = unix.PidfdOpen(c.PID, 0)
	}
	fd := -1
	if err == nil {
		fd, err = unix.PidfdGetfd(pidfd, c.FD, 0)
		unix.Close(pidfd)
	}
	if refused(err) {
		return -1, c.noAccess(err)
	}
	return fd, err
}

func (s *Socket) inspect() error {
	var st unix.Stat_t
	if err := unix.Fstat(s.FD, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return unix.ENOTSOCK
	}
	s.Inode, s.UID = st.Ino, st.Uid
	var err1, err2, err3 error
	s.Family, err1 = s.get(unix.SOL_SOCKET, unix.SO_DOMAIN)
	s.Type, err2 = s.get(unix.SOL_SOCKET, unix.SO_TYPE)
	s.Protocol, err3 = s.get(unix.SOL_SOCKET, unix.SO_PROTOCOL)
	s.readOptions()
	return errors.Join(err1, err2, err3)
}

// readOptions: what a kernel, or a kind of socket, does not know is not set.
func (s *Socket) readOptions() {
	s.V6Only = s.Family == unix.AF_INET6 && s.is(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	s.Device, _ = s.get(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	s.ReusePort = s.is(unix.SOL_SOCKET, unix.SO_REUSEPORT)
	s.Listening = s.is(unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	s.Netns, _ = unix.GetsockoptUint64(s.FD, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if at, err := s.Addr(); err == nil {
		s.Bound = at.Port() != 0
	}
}

func (s *Socket) get(level, name int) (int, error) { return unix.GetsockoptInt(s.FD, level, name) }

func (s *Socket) is(level, name int) bool {
	on, err := s.get(level, name)
	return err == nil && on != 0
}

// Close closes the duplicate; the daemon's socket stays.
func (s *Socket) Close() error { return unix.Close(s.FD) }

// Addr is what the kernel says that it is bound to now; for families other than IP's it
// is zero. IPv4 mapped to IPv6 stays so.
func (s *Socket) Addr() (netip.AddrPort, error) {
	sa, err := unix.Getsockname(s.FD)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("can't read the address of a daemon's socket: %w", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			ip = ip.WithZone(zoneName(int(sa.ZoneId)))
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, nil
}

// IsTCP tells whether it is a stream socket of IP's TCP or MPTCP.
func (s *Socket) IsTCP() bool {
	ip := s.Family == unix.AF_INET || s.Family == unix.AF_INET6
	return ip && s.Type == unix.SOCK_STREAM && (s.Protocol == unix.IPPROTO_TCP || s.IsMPTCP())
}

// IsMPTCP tells whether it speaks MPTCP, as Go's listeners do: such a socket takes no
// steering program; see Plain.
func (s *Socket) IsMPTCP() bool { return s.Protocol == unix.IPPROTO_MPTCP }

// Bind binds it to addr such that it can share the address with others of this
// process's: with SO_REUSEADDR and SO_REUSEPORT, and, where this process may, as its own
// uid's (inet_reuseport_add_sock in net/ipv4/inet_hashtables.c compares the uids). It
// returns the kernel's own answer, for [Call.Answer]; 0 is success.
func (s *Socket) Bind(addr netip.AddrPort) unix.Errno {
	sa, err := sockaddr(addr)
	if err == nil {
		s.own() // before the options: MPTCP makes its inner socket at the first
		err = errors.Join(s.set(unix.SO_REUSEADDR), s.set(unix.SO_REUSEPORT))
	}
	if err == nil {
		err = unix.Bind(s.FD, sa)
	}
	var errno unix.Errno
	if err != nil && !errors.As(err, &errno) {
		return unix.EINVAL
	}
	s.ReusePort = s.ReusePort || errno == 0
	s.Bound = s.Bound || errno == 0
	return errno
}

// own: that it may not is no fault; then only sockets of that uid can share the address,
// and if others have it already, bind(2) says so.
func (s *Socket) own() {
	if uid := os.Geteuid(); s.UID != uint32(uid) && unix.Fchown(s.FD, uid, -1) == nil {
		s.UID = uint32(uid)
	}
}

func (s *Socket) set(name int) error { return unix.SetsockoptInt(s.FD, unix.SOL_SOCKET, name, 1) }

// Plain makes an unbound plain TCP socket that has what s has: family, V6Only, device,
// O_NONBLOCK, and the options of [CarryOptions], which also tells what could not be
// carried; here that is left out. It is made in this process's network namespace, and is
// close-on-exec and the caller's.
func (s *Socket) Plain() (int, error) {
	fd, err := unix.Socket(s.Family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("can't make a plain socket: %w", err)
	}
	if err := s.shape(fd); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("can't make a plain socket like another: %w", err)
	}
	_ = CarryOptions(s.FD, fd)
	return fd, nil
}

// shape gives fd what decides where it may be bound.
func (s *Socket) shape(fd int) error {
	if s.Family == unix.AF_INET6 {
		only := 0
		if s.V6Only {
			only = 1
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return err
		}
	}
	if s.Device != 0 {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, s.Device)
	}
	return nil
}

// CarryOptions gives the socket to what a daemon may have set on from before bind:
// O_NONBLOCK, TCP_DEFER_ACCEPT, and the options of [handoff.CarryOptions]. One that
// can't be set does not stop the others; the error names them all.
func CarryOptions(from, to int) error {
	flags, err := unix.FcntlInt(uintptr(from), unix.F_GETFL, 0)
	if err == nil {
		err = setNonblock(to, flags&unix.O_NONBLOCK != 0)
	}
	return errors.Join(err, handoff.CarryOptions(from, to), carryDefer(from, to))
}

// carryDefer: an endpoint knows this one itself, so that package handoff does not carry it.
func carryDefer(from, to int) error {
	want, err := unix.GetsockoptInt(from, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
	if err != nil {
		return nil // MPTCP before it had it
	}
	if have, err := unix.GetsockoptInt(to, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT); err == nil && have == want {
		return nil
	}
	if err := unix.SetsockoptInt(to, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, want); err != nil {
		return fmt.Errorf("TCP_DEFER_ACCEPT can't be set to %d: %w", want, err)
	}
	return nil
}
