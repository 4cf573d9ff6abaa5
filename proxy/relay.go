package proxy

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Dial connects to whoever serves the client, which it leaves alone.
type Dial func(ctx context.Context, client net.Conn) (net.Conn, error)

// Relay serves each client through a connection of its own that dial makes, and
// returns how many got one when all are done. When ctx ends the rest is cut off
// with a reset. It closes every client; one that could not be connected is reset.
func Relay(ctx context.Context, clients []net.Conn, dial Dial) (served int) {
	var count atomic.Int64
	var wg sync.WaitGroup
	for _, client := range clients {
		wg.Go(func() {
			if relayOne(ctx, client, dial) {
				count.Add(1)
			}
		})
	}
	wg.Wait()
	return int(count.Load())
}

func relayOne(ctx context.Context, client net.Conn, dial Dial) bool {
	server, err := dial(ctx, client)
	if err != nil {
		reset(client)
		return false
	}
	p := &pair{client: client, server: server}
	stop := context.AfterFunc(ctx, p.cut)
	defer stop()
	p.copyBoth()
	return true
}

// pair is a client and the connection that serves it.
type pair struct {
	client, server net.Conn
	once           sync.Once
}

// copyBoth returns when both directions have ended and both connections are closed.
func (p *pair) copyBoth() {
	var wg sync.WaitGroup
	wg.Go(func() { p.copyTo(p.server, p.client) })
	wg.Go(func() { p.copyTo(p.client, p.server) })
	wg.Wait()
	p.once.Do(func() {
		p.client.Close()
		p.server.Close()
	})
}

// copyTo copies one direction and passes on how it ended. The connections are
// handed to io.Copy as they are, so that the kernel can splice them.
func (p *pair) copyTo(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		p.cut()
		return
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		if half.CloseWrite() == nil {
			return
		}
	}
	p.cut()
}

// cut resets both sides, so that neither takes it for a whole answer.
func (p *pair) cut() {
	p.once.Do(func() {
		reset(p.client)
		reset(p.server)
	})
}

func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		// Of no use only if it is closed already.
		_ = t.SetLinger(0)
	}
	c.Close()
}
