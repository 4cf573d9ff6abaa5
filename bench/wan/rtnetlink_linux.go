package wan

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	loopbackIndex = 1 // in every network namespace
	// answerLimit is for a kernel that does not answer: it does within the call, and its workers within milliseconds.
	answerLimit = 5 * time.Second
)

// rtnetlink speaks to the kernel about the devices of the namespace in which it was opened.
type rtnetlink struct {
	fd int
}

// openRtnetlink opens the socket in the namespace of the calling thread; the caller closes it.
func openRtnetlink() (*rtnetlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("can't open rtnetlink: %w", err)
	}
	limit := unix.NsecToTimeval(int64(answerLimit))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("can't open rtnetlink: %w", err)
	}
	return &rtnetlink{fd: fd}, nil
}

func (r *rtnetlink) close() { unix.Close(r.fd) }

// up starts a device, with the attributes that are given.
func (r *rtnetlink) up(index int, attributes ...[]byte) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	binary.NativeEndian.PutUint32(body[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(body[12:], unix.IFF_UP) // which flags change
	if err := r.change(unix.RTM_NEWLINK, 0, body, attributes...); err != nil {
		return fmt.Errorf("can't start network device %d: %w", index, err)
	}
	return nil
}

// address gives a device an address, usable at once: without NODAD an IPv6 address is refused for a second.
func (r *rtnetlink) address(index int, prefix netip.Prefix) error {
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0] = family(prefix.Addr())
	body[1] = byte(prefix.Bits())
	body[2] = unix.IFA_F_NODAD
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	raw := prefix.Addr().AsSlice()
	err := r.change(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body,
		attribute(unix.IFA_LOCAL, raw), attribute(unix.IFA_ADDRESS, raw))
	if err != nil {
		return fmt.Errorf("can't give network device %d the address %s: %w", index, prefix, err)
	}
	return nil
}

// reachable waits until the namespace takes packets for one of its addresses. For IPv6 the kernel's answer to address comes
// too early: a worker of its own adds the route that says "this is me", and what arrives before is thrown away.
func (r *rtnetlink) reachable(ip netip.Addr) error {
	for deadline := time.Now().Add(answerLimit); ; time.Sleep(time.Millisecond) {
		local, err := r.isLocal(ip)
		if err != nil {
			return fmt.Errorf("can't find the route to own address %s: %w", ip, err)
		}
		if local {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("can't use own address %s: still without a route after %s", ip, answerLimit)
		}
	}
}

// isLocal asks where a packet to an address would go.
func (r *rtnetlink) isLocal(ip netip.Addr) (bool, error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = family(ip)
	body[1] = byte(ip.BitLen())
	if err := r.send(unix.RTM_GETROUTE, 0, body, attribute(unix.RTA_DST, ip.AsSlice())); err != nil {
		return false, err
	}
	kind, route, err := r.receive()
	if err != nil {
		return false, err
	}
	if kind != unix.RTM_NEWROUTE || len(route) < unix.SizeofRtMsg {
		return false, errStrange(kind, route)
	}
	return route[7] == unix.RTN_LOCAL, nil
}

func family(ip netip.Addr) byte {
	if ip.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// change sends a request that changes something and waits until it has.
func (r *rtnetlink) change(kind, flags uint16, body []byte, attributes ...[]byte) error {
	if err := r.send(kind, flags|unix.NLM_F_ACK, body, attributes...); err != nil {
		return err
	}
	kind, answer, err := r.receive()
	if err == nil && kind != unix.NLMSG_ERROR {
		err = errStrange(kind, answer)
	}
	return err
}

func (r *rtnetlink) send(kind, flags uint16, body []byte, attributes ...[]byte) error {
	message := make([]byte, unix.SizeofNlMsghdr, 256)
	message = append(message, body...)
	for _, a := range attributes {
		message = append(message, a...)
	}
	binary.NativeEndian.PutUint32(message[0:], uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], kind)
	binary.NativeEndian.PutUint16(message[6:], flags|unix.NLM_F_REQUEST)
	return unix.Sendto(r.fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive reads one answer. NLMSG_ERROR with code 0 is the acknowledgement of a change; with another code it is the error.
func (r *rtnetlink) receive() (kind uint16, body []byte, err error) {
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(r.fd, answer, 0)
	if err != nil {
		return 0, nil, err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return 0, nil, errStrange(0, answer[:n])
	}
	kind, body = binary.NativeEndian.Uint16(answer[4:]), answer[unix.SizeofNlMsghdr:n]
	if code := int32(binary.NativeEndian.Uint32(body)); kind == unix.NLMSG_ERROR && code != 0 {
		return kind, nil, unix.Errno(-code)
	}
	return kind, body, nil
}

func errStrange(kind uint16, body []byte) error {
	return fmt.Errorf("can't understand the kernel's answer: type %d, %d bytes", kind, len(body))
}

// attribute encodes one rtattr: length, type, value, padded to four bytes.
func attribute(kind uint16, value []byte) []byte {
	size := unix.SizeofRtAttr + len(value)
	out := make([]byte, (size+3)&^3)
	binary.NativeEndian.PutUint16(out[0:], uint16(size))
	binary.NativeEndian.PutUint16(out[2:], kind)
	copy(out[unix.SizeofRtAttr:], value)
	return out
}

func attribute32(kind uint16, value uint32) []byte {
	return attribute(kind, binary.NativeEndian.AppendUint32(nil, value))
}
