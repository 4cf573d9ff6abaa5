// Package notify is the manager's side of sd_notify(3): a socket to which a daemon
// says READY=1 and how it is.
//
// # Protocol
//
// One datagram holds lines of KEY=VALUE. The sender is who the kernel says it is
// (SCM_CREDENTIALS, unix(7)), never who it claims to be; a datagram without
// credentials, one longer than 4096 bytes or one with a NUL in it is dropped, as
// systemd does. File descriptors that come along are closed, which also answers
// BARRIER=1: whoever waits for that knows all it sent before has been read.
//
// # Ownership
//
// Each generation has a socket of its own, so that a message can't be taken for
// another generation's. [Socket.Run] reads it in one goroutine until Close. If the
// holder dies the address is gone and the daemon's next message fails, which
// sd_notify callers ignore by contract.
package notify

import "strings"

// messageMost is what PID 1 takes too (PIPE_BUF).
const messageMost = 4096

// Message is one datagram.
type Message struct {
	PID    int
	UID    uint32
	Fields map[string]string
}

// Ready tells whether the daemon says that it can serve.
func (m Message) Ready() bool { return m.Fields["READY"] == "1" }

// Stopping tells whether the daemon says that it has begun to stop.
func (m Message) Stopping() bool { return m.Fields["STOPPING"] == "1" }

// parse reads the lines of a datagram. Of a key that comes twice the last counts.
func parse(b []byte) (map[string]string, bool) {
	text := string(b)
	if len(b) > messageMost || strings.ContainsRune(text, 0) {
		return nil, false
	}
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if found && key != "" {
			fields[key] = value
		}
	}
	return fields, true
}
