// Package conns answers which TCP connections are whose, how old and how idle.
//
// It asks the kernel (NETLINK_SOCK_DIAG) and /proc and changes nothing: no connection is owned, kept open or closed by it.
// A [Diag] owns one netlink descriptor, closed by [Diag.Close]; when the process dies the kernel closes it, and nothing stays
// behind on either side. What it reports is about the network namespace in which [Open] was called, and about the moment of
// the question: sockets come and go while the kernel answers, so an answer is no snapshot. No privilege is needed, except
// that the open files of another user's process can't be read.
//
// Facts about the protocol are from the kernel's include/uapi/linux/{inet_diag,sock_diag,netlink,tcp}.h, and measured on
// Linux 6.18:
//
//   - The sockets of a dual-stack listener stand in the AF_INET6 table only, its IPv4 clients too. Addresses are handed out
//     unmapped here; [Conn.Family] keeps the table.
//   - The cookie of a connection is the same from SYN_RECV to its end.
//   - An exact question ([Diag.Lookup]) finds half-open connections (request sockets) as well, with their cookie, and does not
//     keep the tables apart. A half-open connection stays to be found after its listener was closed, until its timer strikes.
//   - The inode is 0 before accept and after close; in ESTABLISHED and CLOSE_WAIT it means "still in the accept queue".
//   - A dump walks the whole connection hash, some milliseconds of CPU, however few connections match: ask seldom.
package conns

import (
	"net/netip"
	"time"
)

// AnyCookie in [Conn.Cookie] lets [Diag.Lookup] find whatever connection has the addresses. So does 0.
const AnyCookie = ^uint64(0)

// Conn is one TCP socket of the kernel's: a connection, half-open, open or ending, or a listener.
type Conn struct {
	// Family is the table the socket stands in, unix.AF_INET or unix.AF_INET6; an IPv4 client of a dual-stack listener is in
	// the latter.
	Family int
	State  State
	// Local and Remote are never IPv4-mapped and carry no zone; Device has the interface of a link-local address.
	// Remote is the unspecified address and port 0 for a listener.
	Local, Remote netip.AddrPort
	// Device is the index of the interface that the socket is bound to, or 0.
	Device uint32
	// Cookie names the socket for as long as it exists, and no other one later.
	Cookie uint64
	// Inode is that of the open file, as /proc/PID/fd shows it; 0 while nobody has accepted the connection, and after close.
	Inode uint64
	// UID is the user who made the socket.
	UID uint32
	// RQueue and WQueue are the bytes that the process has not read and the peer has not acknowledged. Of a listener they are
	// the length of the accept queue and its limit, in connections.
	RQueue, WQueue uint32
	// V6Only tells of a listener with Family AF_INET6 that it takes no IPv4 clients.
	V6Only bool
	// Info is nil unless it was asked for and the kernel has it: half-open connections and TIME_WAIT have none.
	Info *Info
}

// Idle reports for how long no data has gone either way. It is 0 without an Info and while bytes wait in a queue.
// Keep-alive probes don't count as data.
func (c Conn) Idle() time.Duration {
	if c.Info == nil || c.RQueue > 0 || c.WQueue > 0 {
		return 0
	}
	return min(c.Info.LastDataSent, c.Info.LastDataRecv)
}

// Info is what TCP knows of a connection (struct tcp_info). What an older kernel does not report is 0.
type Info struct {
	// DataSegsOut and DataSegsIn count segments with data, retransmitted ones too (since Linux 4.6).
	DataSegsOut, DataSegsIn uint32
	// BytesReceived, BytesAcked and BytesSent count payload; BytesSent includes retransmissions (since Linux 4.19).
	BytesReceived, BytesAcked, BytesSent uint64
	// LastDataSent and LastDataRecv are the time since data was last sent and received; before the first data, the time since
	// the handshake ended. In milliseconds, rounded to the kernel's tick.
	LastDataSent, LastDataRecv time.Duration
	// RTT is the smoothed round-trip time.
	RTT time.Duration
	// Unacked is the number of segments in flight; of a listener, the length of the accept queue.
	Unacked uint32
	// Retransmits is the number of times the segment at hand has been sent again without an answer.
	Retransmits uint8
}

// Answered reports whether this side has sent any data since the connection was opened.
func (i *Info) Answered() bool { return i != nil && i.DataSegsOut > 0 }

// Query says which sockets [Diag.Dump] shall return. The zero value is every TCP socket of the namespace.
type Query struct {
	// Families are the tables to read, unix.AF_INET and unix.AF_INET6: a dump each. Nil means both.
	Families []int
	// States are those wanted; 0 means all.
	States States
	// Ports are local ports; empty means all. The kernel filters by up to 32 of them, more are filtered here.
	Ports []uint16
	// Cgroup, if not 0, is the one that the sockets must be of, by the inode of its directory in the unified hierarchy; those
	// of cgroups in it are others. A connection is of the cgroup of whoever made its listener, not of who accepted it.
	// Since Linux 5.9; before, an error.
	Cgroup uint64
	// Info asks for [Conn.Info] too: some 300 bytes more to copy for each connection.
	Info bool
}

// Owner is a process that has a socket open.
type Owner struct {
	PID int
	// Name is the process's command name, at most 15 bytes of it.
	Name string
	// UID is its effective user.
	UID uint32
}
