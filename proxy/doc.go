// Package proxy is the data path for daemons that can't be handed a socket: bytes
// are copied between a client and the daemon. So far it holds the relay, which
// serves clients that were left in the queue of a listener that nobody accepts from
// any more.
//
// It owns the connections it is given, closes them all, and starts no goroutine
// that outlives the call. If either side of a pair dies, the other side sees the
// same: an end of stream as an end of stream, a reset as a reset.
package proxy
