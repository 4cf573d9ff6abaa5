// Package wan is a long, lossy wire inside one process: two network namespaces, a TUN device in each, and a relay
// in user space that delays every packet by half the round-trip time and loses a share of them. Tests of what is in
// flight while listeners are switched need one, and not every kernel has netem.
//
// Ownership. A [Link] owns both namespaces, both devices and the relay's goroutines; [Link.Close] ends them and waits.
// Sockets and child processes that were made on a [Side] belong to whoever made them: after Close they still exist,
// but their packets go nowhere. The kernel frees a namespace with its last socket and process.
//
// Death. Nothing has a name outside the process: no file in /run/netns, no persistent device, no interface in the
// namespace that the process started in. When the process dies, by SIGKILL too, everything goes with it, except
// children on a side, which lose the wire but keep their namespace until they exit.
//
// A wire shares the CPU with what it carries. On a busy machine packets are late, by 50 ms where two CPUs have six to feed;
// running the whole process at nice -15 brings most of that back. [Stats] tells when packets were lost by it.
//
// Facts come from namespaces(7), setns(2), rtnetlink(7) and the kernel's Documentation/networking/tuntap.rst.
//
// Linux only, and only with CAP_SYS_ADMIN and CAP_NET_ADMIN (root): elsewhere [Open] returns an error.
package wan

import (
	"fmt"
	"time"
)

// Options describe the wire. The zero value is a wire without delay and without loss.
type Options struct {
	// RTT is the time that a packet and its answer spend on the wire together: each way takes half. Packets are
	// never early; they are late by up to about 1 ms, or as long as the machine is too busy.
	RTT time.Duration
	// Loss is the share of packets lost in each direction, 0 to 1.
	Loss float64
	// Seed chooses which packets are lost: the n-th packet of a direction has the same fate for the same seed.
	Seed uint64
}

func (o Options) check() error {
	if o.RTT < 0 {
		return fmt.Errorf("can't use a round-trip time of %s: it is negative", o.RTT)
	}
	if !(o.Loss >= 0 && o.Loss <= 1) {
		return fmt.Errorf("can't lose a share of %v: it is not between 0 and 1", o.Loss)
	}
	return nil
}

// Stats is what the wire has carried so far, by direction.
type Stats struct {
	ToServer, ToClient Flow
}

// Flow counts the packets of one direction.
type Flow struct {
	// Packets were sent into the wire, those that it lost included.
	Packets uint64
	// Lost were thrown away on purpose, see [Options.Loss].
	Lost uint64
	// Overrun were lost because the relay or the machine could not keep up. A measurement with any of these says
	// nothing about the chosen loss.
	Overrun uint64
	// MaxQueue is the largest number of packets that were on the wire at once.
	MaxQueue int
}
