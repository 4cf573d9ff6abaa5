package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"
)

// client is one client with at most one connection, which it owns. It belongs
// to one goroutine.
type client struct {
	load    *Load
	to      netip.AddrPort
	request []byte
	id      int
	dials   int
	random  *rand.ChaCha8 // for Echo: what to send

	conn   *wire // nil: not connected
	reader *bufio.Reader
	served int // exchanges that conn has completed
}

// wire is a connection that remembers why it could not be read: net/http's
// parser calls a header that a reset or the deadline cut "malformed".
type wire struct {
	net.Conn
	err  error
	read bool // something
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.read = w.read || n > 0
	if err != nil {
		w.err = err
	}
	return n, err
}

// cause is the connection's error if it had one, else the parser's.
func (w *wire) cause(parsing error) error {
	if w.err == nil || errors.Is(parsing, w.err) {
		return parsing
	}
	return fmt.Errorf("%w (%w)", w.err, parsing)
}

// kept says whether connections outlive a request.
func (c *client) kept() bool { return c.load.Kind == KeepAlive || c.load.Kind == Echo }

// exchange does one request and fills in what became of it. The connection
// stays where the protocol lets it; PerRequest leaves it to linger.
func (c *client) exchange(ctx context.Context, o *outcome) *fault {
	deadline := o.began.Add(c.load.Timeout + c.load.Pause)
	fault := c.connected(ctx, deadline, o)
	if fault == nil {
		o.reused = c.served > 0
		fault = c.send(o)
		c.served++
	}
	if fault != nil {
		c.close()
	}
	return fault
}

func (c *client) send(o *outcome) *fault {
	switch {
	case c.load.Kind == Echo:
		return c.echo()
	case c.load.Speak != nil:
		return c.speak(o)
	}
	return c.http(o)
}

// connected makes sure that there is a connection with the deadline set. A
// kept one is looked at first: a server may close what is idle.
func (c *client) connected(ctx context.Context, deadline time.Time, o *outcome) *fault {
	if c.conn != nil {
		if fault := c.lookAtIdle(o); fault != nil {
			o.reused = true
			return fault
		}
	}
	if c.conn == nil {
		if fault := c.dial(ctx, deadline); fault != nil {
			return fault
		}
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return failed(waiting, err)
	}
	return nil
}

// lookAtIdle drops the kept connection if its server has ended it meanwhile.
// A clean end loses nothing. A reset loses no HTTP request either, but is
// counted by itself; on an Echo connection, which carries a dialogue rather
// than requests, it is a failure.
func (c *client) lookAtIdle(o *outcome) *fault {
	err := peek(c.conn.Conn, c.reader)
	switch {
	case errors.Is(err, errQuiet):
		return nil
	case err == nil:
		return c.unsolicited(o)
	case errors.Is(err, io.EOF):
		o.reconnected = true
	case c.load.Kind == Echo:
		return failed(answered, err)
	default:
		o.idleReset = true
	}
	c.close()
	return nil
}

// unsolicited judges bytes that came between two requests. Only one message
// may come there: 408, with which some servers close what idles (RFC 9110
// 15.5.9).
func (c *client) unsolicited(o *outcome) *fault {
	head, _ := c.reader.Peek(min(c.reader.Buffered(), len("HTTP/1.1 408")))
	if c.load.Kind == KeepAlive && strings.HasPrefix(string(head), "HTTP/1.1 408") {
		o.reconnected = true
		c.close()
		return nil
	}
	return &fault{class: Wrong, err: fmt.Errorf("bytes that nobody asked for: %q", head)}
}

func (c *client) dial(ctx context.Context, deadline time.Time) *fault {
	// The end of the run must not look like a failure of the server.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	dial := c.load.Dial
	if dial == nil {
		dial = c.dialAddr
	}
	conn, err := dial(ctx)
	if err != nil {
		return failed(dialling, err)
	}
	c.conn, c.served = &wire{Conn: conn}, 0
	if c.reader == nil {
		c.reader = bufio.NewReader(c.conn)
	}
	c.reader.Reset(c.conn)
	return nil
}

func (c *client) dialAddr(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{KeepAlive: -1} // it would cost two system calls
	var from netip.AddrPort
	if n := len(c.load.LocalAddrs); n > 0 {
		from = netip.AddrPortFrom(c.load.LocalAddrs[(c.id+c.dials)%n], 0)
		dialer.Control = choosePortLate
	}
	c.dials++
	conn, err := dialer.DialTCP(ctx, "tcp", from, c.to)
	if err != nil {
		return nil, err // not conn: a nil *TCPConn is no nil net.Conn
	}
	return conn, nil
}

// linger lets the server close first after its last answer: TIME_WAIT then
// sits at its end, and our local ports do not run out. Nothing more is judged
// here, the request is over.
func (c *client) linger() {
	if c.conn == nil || c.kept() {
		return
	}
	if c.conn.SetDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c.conn, 1<<20))
	}
	c.close()
}

// lingerTime is above every sensible round trip and below what would hold a
// client of a server that never closes for long.
const lingerTime = 250 * time.Millisecond

// close ends the connection; without one it does nothing.
func (c *client) close() {
	if c.conn != nil {
		// The request has had its verdict: an error here changes nothing.
		_ = c.conn.Close()
	}
	c.conn = nil
}
