package activation

import (
	"crypto/tls"
	"net"
	"net/http"
	"syscall"
	"time"
)

// receiving reports whether c, between requests, has received anything within
// the last d: part of a request, then. It reports false where it can't know.
func receiving(c net.Conn, state http.ConnState, d time.Duration) bool {
	if t, ok := c.(*tls.Conn); ok {
		// HTTP/2 has its own way to refuse what comes late, and pings when
		// idle. Not asked during a handshake: that would wait for it.
		if state == http.StateIdle && t.ConnectionState().NegotiatedProtocol == "h2" {
			return false
		}
		c = t.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	recent := false
	_ = raw.Control(func(fd uintptr) { recent = receivedWithin(int(fd), d) }) // fails when c is closed: not receiving
	return recent
}
