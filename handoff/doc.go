// Package handoff keeps listening sockets alive while the processes behind them
// come and go, and tells the kernel which of them gets the next connection. It
// knows no daemon and no policy: who is live, for how long and why is decided by
// package reload.
//
// # Words
//
// An [Endpoint] is one address. A [Listener] is one open socket at it; each
// generation of a daemon has its own, all in one SO_REUSEPORT group. A [Plan]
// says which listeners get the traffic, and [Endpoint.Steer] puts it in force
// with a classic BPF program (SO_ATTACH_REUSEPORT_CBPF, which needs no
// privilege). A pad is a listener of this package's own that nobody accepts
// from; it only holds a place.
//
// # Rules that keep it sound
//
// The kernel keeps a group as an array (net/core/sock_reuseport.c): a TCP
// socket joins at the end on its first listen(2), and when one leaves, the last
// takes its place. A program answers with an index; an index beyond the end
// means a hash over all members. From that follows:
//
//  1. The program is attached to the first socket before a second one joins: alone
//     it gets everything anyway. Later members just join, since the program in
//     force names an index that exists and is not theirs.
//  2. A member that may leave by itself (its daemon was told to stop and may
//     call shutdown(2)) is called loose. Whatever the order in which loose
//     members leave, no other daemon's member may move: so many pads stand
//     behind them that the array stays longer than the highest index in use.
//     One that leaves unasked is found by the [Guard], or when anything is done next,
//     and places are known as long as no other leaves before that, a loose one
//     included: in which order they left can't be seen, and it decides who has moved
//     where.
//  3. A planned leave re-attaches at once if it moved a member that is steered
//     to, and is only done where no client can stray between the two.
//  4. An address that another process listens on is never shared silently: the
//     error names the process.
//
// # Ownership
//
// An Endpoint and its Listeners are owned by one goroutine; only a [Settler], a
// [Guard] and [Dial] may be used beside it, each by one goroutine of its own.
// A Listener's descriptor belongs to this package until [Endpoint.Close]; it is
// close-on-exec, and whoever wants to pass it on sends it by [Send] or duplicates
// it. Daemons get duplicates. If a daemon dies, its listener and the clients
// waiting in it stay; if this process dies, the sockets live on in the daemons.
package handoff
