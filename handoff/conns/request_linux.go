package conns

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// From linux/inet_diag.h; golang.org/x/sys has none of these.
const (
	attrBytecode = 1 // INET_DIAG_REQ_BYTECODE
	extInfo      = 2 // INET_DIAG_INFO
	attrV6Only   = 11

	opJump    = 1
	opPortEq  = 11 // INET_DIAG_BC_S_EQ
	opCgroup  = 13 // INET_DIAG_BC_CGROUP_COND, Linux 5.9
	sizeOp    = 4
	sizePort  = 2 * sizeOp // the op and its argument
	sizeBlock = sizePort + sizeOp
	// sizeCgroup is the op and its argument, 64 bits that need no alignment.
	sizeCgroup = sizeOp + 8

	sizeID      = 48 // struct inet_diag_sockid
	sizeRequest = 8 + sizeID
	sizeAnswer  = 4 + sizeID + 20 // struct inet_diag_msg

	// maxPorts is how many ports the kernel shall compare for each socket it walks over: its work grows with their number.
	maxPorts = 32
)

var native = binary.NativeEndian

// dumpRequest asks for all sockets of a table that q matches.
func dumpRequest(seq uint32, family int, q Query) []byte {
	states := q.States
	if states == 0 {
		states = allStates
	}
	b := appendHeader(nil, seq, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = appendBody(b, family, states, q.Info)
	b = append(b, make([]byte, sizeID)...)
	if filter := bytecode(q); len(filter) > 0 {
		b = appendAttr(b, attrBytecode, filter)
	}
	return finish(b)
}

// bytecode is what the kernel shall filter by; none if it is all.
func bytecode(q Query) []byte {
	var ports []byte
	if len(q.Ports) <= maxPorts {
		ports = portFilter(q.Ports)
	}
	if q.Cgroup == 0 {
		return ports
	}
	return append(cgroupFilter(q.Cgroup, len(ports)), ports...)
}

// cgroupFilter is inet_diag bytecode for "the socket is of that cgroup", with so many bytes behind it that say what else must
// hold. Unequal goes 4 bytes behind the end of all, which rejects.
func cgroupFilter(id uint64, behind int) []byte {
	b := appendOp(nil, opCgroup, sizeCgroup, uint16(sizeCgroup+behind+sizeOp))
	return native.AppendUint64(b, id)
}

// lookupRequest asks for the one socket with the given addresses, which must both be of the family.
func lookupRequest(seq uint32, family int, c Conn) []byte {
	b := appendHeader(nil, seq, unix.NLM_F_REQUEST)
	b = appendBody(b, family, allStates, true)
	b = binary.BigEndian.AppendUint16(b, c.Local.Port())
	b = binary.BigEndian.AppendUint16(b, c.Remote.Port())
	b = appendAddr(b, family, c.Local.Addr())
	b = appendAddr(b, family, c.Remote.Addr())
	b = native.AppendUint32(b, c.Device)
	cookie := c.Cookie
	if cookie == 0 {
		cookie = AnyCookie
	}
	b = native.AppendUint32(b, uint32(cookie))
	b = native.AppendUint32(b, uint32(cookie>>32))
	return finish(b)
}

func appendHeader(b []byte, seq uint32, flags uint16) []byte {
	b = native.AppendUint32(b, 0) // length, see finish
	b = native.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = native.AppendUint16(b, flags)
	b = native.AppendUint32(b, seq)
	return native.AppendUint32(b, 0)
}

func appendBody(b []byte, family int, states States, info bool) []byte {
	var ext byte
	if info {
		ext = 1 << (extInfo - 1)
	}
	b = append(b, byte(family), unix.IPPROTO_TCP, ext, 0)
	return native.AppendUint32(b, uint32(states))
}

func appendAddr(b []byte, family int, a netip.Addr) []byte {
	var field [16]byte
	if family == unix.AF_INET6 {
		field = a.As16()
	} else {
		v4 := a.Unmap().As4()
		copy(field[:], v4[:])
	}
	return append(b, field[:]...)
}

func appendAttr(b []byte, kind uint16, value []byte) []byte {
	b = native.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = native.AppendUint16(b, kind)
	return append(b, value...) // all values here are multiples of 4, no padding
}

// finish writes the length that appendHeader left out.
func finish(b []byte) []byte {
	native.PutUint32(b, uint32(len(b)))
	return b
}

// portFilter is inet_diag bytecode for "the local port is one of ports". For each port: if equal, fall into a jump to the
// end, else skip that jump. The last one has no jump: equal ends the program exactly at its end, which accepts; unequal 4
// bytes behind it, which rejects.
func portFilter(ports []uint16) []byte {
	ports = slices.Clone(ports)
	slices.Sort(ports)
	ports = slices.Compact(ports)
	var b []byte
	for i, port := range ports {
		b = appendOp(b, opPortEq, sizePort, sizeBlock)
		b = appendOp(b, 0, 0, port)
		if left := len(ports) - i - 1; left > 0 {
			toEnd := sizeOp + left*sizeBlock - sizeOp
			b = appendOp(b, opJump, sizeOp, uint16(toEnd))
		}
	}
	return b
}

// appendOp appends a struct inet_diag_bc_op: where to go on, counted from its start, if it holds (yes) or not (no).
func appendOp(b []byte, code, yes byte, no uint16) []byte {
	return native.AppendUint16(append(b, code, yes), no)
}
