package conns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var errMalformed = errors.New("malformed netlink message")

// answer gathers the messages that answer one request; several reads may be needed until it is done.
type answer struct {
	seq  uint32
	want map[uint16]bool // local ports; nil for all
	// each, if not nil, takes the sockets, as a struct inet_diag_msg and its attributes, in the place of conns. It must not keep
	// them.
	each  func([]byte) error
	conns []Conn
	done  bool
	// interrupted tells that the kernel's table changed in a way that makes the answer incomplete.
	interrupted bool
}

// take adds the messages in b, one read from the socket. Messages of other requests are passed over. An error that the
// kernel reports is returned as its errno, and the answer is done.
func (a *answer) take(b []byte) error {
	for len(b) > 0 && !a.done {
		if len(b) < unix.SizeofNlMsghdr {
			return errMalformed
		}
		size := int64(native.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > int64(len(b)) {
			return errMalformed
		}
		if native.Uint32(b[8:]) == a.seq {
			if err := a.message(b[:size]); err != nil {
				return err
			}
		}
		b = b[min((size+3)&^3, int64(len(b))):]
	}
	return nil
}

// message takes one message, header and all.
func (a *answer) message(b []byte) error {
	kind, flags := native.Uint16(b[4:]), native.Uint16(b[6:])
	if flags&unix.NLM_F_DUMP_INTR != 0 {
		a.interrupted = true
	}
	body := b[unix.SizeofNlMsghdr:]
	switch kind {
	case unix.NLMSG_DONE, unix.NLMSG_ERROR:
		a.done = true
		return errno(body)
	case unix.NLMSG_OVERRUN:
		return errors.New("netlink data lost")
	case unix.SOCK_DIAG_BY_FAMILY:
		a.done = flags&unix.NLM_F_MULTI == 0
		return a.socket(body)
	}
	return nil
}

// errno is the error that a DONE or ERROR message begins with, as a negative number; 0 and nothing at all are success.
func errno(b []byte) error {
	if len(b) < 4 {
		return nil
	}
	if code := int32(native.Uint32(b)); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}

func (a *answer) socket(b []byte) error {
	if len(b) < sizeAnswer {
		return errMalformed
	}
	if a.want != nil && !a.want[binary.BigEndian.Uint16(b[4:])] {
		return nil
	}
	if a.each != nil {
		return a.each(b)
	}
	c, ok := parseConn(b)
	if !ok {
		return fmt.Errorf("%w: family %d", errMalformed, b[0])
	}
	if err := c.attributes(b[sizeAnswer:]); err != nil {
		return err
	}
	a.conns = append(a.conns, c)
	return nil
}

// parseConn reads a struct inet_diag_msg: family, state, timer, retransmits, the identity, and five numbers.
func parseConn(b []byte) (Conn, bool) {
	c := Conn{Family: int(b[0]), State: State(b[1])}
	if c.Family != unix.AF_INET && c.Family != unix.AF_INET6 {
		return Conn{}, false
	}
	id, rest := b[4:4+sizeID], b[4+sizeID:]
	c.Local = parseAddr(c.Family, id[4:20], binary.BigEndian.Uint16(id))
	c.Remote = parseAddr(c.Family, id[20:36], binary.BigEndian.Uint16(id[2:]))
	c.Device = native.Uint32(id[36:])
	c.Cookie = uint64(native.Uint32(id[40:])) | uint64(native.Uint32(id[44:]))<<32
	c.RQueue, c.WQueue = native.Uint32(rest[4:]), native.Uint32(rest[8:])
	c.UID, c.Inode = native.Uint32(rest[12:]), uint64(native.Uint32(rest[16:]))
	return c, true
}

func parseAddr(family int, b []byte, port uint16) netip.AddrPort {
	if family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), port)
}

// attributes takes those of the netlink attributes in b that a Conn has a place for.
func (c *Conn) attributes(b []byte) error {
	return eachAttribute(b, func(kind uint16, value []byte) {
		switch {
		case kind == extInfo:
			c.Info = parseInfo(value)
		case kind == attrV6Only && len(value) > 0:
			c.V6Only = value[0] != 0
		}
	})
}

func eachAttribute(b []byte, f func(kind uint16, value []byte)) error {
	for len(b) >= unix.SizeofNlAttr {
		size, kind := int(native.Uint16(b)), native.Uint16(b[2:])
		if size < unix.SizeofNlAttr || size > len(b) {
			return errMalformed
		}
		f(kind, b[unix.SizeofNlAttr:size])
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

// parseInfo reads a struct tcp_info, which grows with the kernel: what one side knows and the other does not is left out.
func parseInfo(b []byte) *Info {
	var t unix.TCPInfo
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&t)), unsafe.Sizeof(t)), b)
	return &Info{
		DataSegsOut:   t.Data_segs_out,
		DataSegsIn:    t.Data_segs_in,
		BytesReceived: t.Bytes_received,
		BytesAcked:    t.Bytes_acked,
		BytesSent:     t.Bytes_sent,
		LastDataSent:  time.Duration(t.Last_data_sent) * time.Millisecond,
		LastDataRecv:  time.Duration(t.Last_data_recv) * time.Millisecond,
		RTT:           time.Duration(t.Rtt) * time.Microsecond,
		Unacked:       t.Unacked,
		Retransmits:   t.Retransmits,
	}
}
