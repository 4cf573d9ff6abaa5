package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// TestMain fails the run if a test leaves a goroutine or a descriptor behind.
// The runtime keeps pipes for splice(2) until they are collected.
func TestMain(m *testing.M) { os.Exit(leaktest.Run(m, 2)) }

// connPair is a connection's two ends.
func connPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near, far = c.(*net.TCPConn), a.(*net.TCPConn)
	for _, c := range []*net.TCPConn{near, far} {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		t.Cleanup(func() { c.Close() })
	}
	return near, far
}

// relayed is a client and a server with a relay between them.
type relayed struct {
	client, server *net.TCPConn
	served         <-chan int
}

func relayPair(ctx context.Context, t *testing.T) relayed {
	t.Helper()
	client, waiting := connPair(t)
	dialled, server := connPair(t)
	served := make(chan int, 1)
	go func() {
		served <- Relay(ctx, []net.Conn{waiting}, func(context.Context, net.Conn) (net.Conn, error) { return dialled, nil })
	}()
	return relayed{client, server, served}
}

func (r relayed) end(t *testing.T, want int) {
	t.Helper()
	select {
	case n := <-r.served:
		if n != want {
			t.Errorf("%d served, want %d", n, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the relay does not end")
	}
}

func TestRelayBothWays(t *testing.T) {
	r := relayPair(t.Context(), t)
	request, response := randomBytes(1<<20), randomBytes(3<<20)
	got := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(r.server) // ends when the client has half-closed
		got <- b
		r.server.Write(response)
		r.server.CloseWrite()
	}()
	if _, err := r.client.Write(request); err != nil {
		t.Fatal(err)
	}
	r.client.CloseWrite()
	answer, err := io.ReadAll(r.client)
	if err != nil || !bytes.Equal(answer, response) {
		t.Errorf("%d bytes of %d came back, %v", len(answer), len(response), err)
	}
	if b := <-got; !bytes.Equal(b, request) {
		t.Errorf("%d bytes of %d arrived", len(b), len(request))
	}
	r.end(t, 1)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.IntN(256))
	}
	return b
}

func wantReset(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestRelayPassesResetsOn(t *testing.T) {
	for name, ends := range map[string]func(relayed) (breaks, sees *net.TCPConn){
		"client's": func(r relayed) (*net.TCPConn, *net.TCPConn) { return r.client, r.server },
		"server's": func(r relayed) (*net.TCPConn, *net.TCPConn) { return r.server, r.client },
	} {
		t.Run(name, func(t *testing.T) {
			r := relayPair(t.Context(), t)
			breaks, sees := ends(r)
			breaks.Write([]byte("half an ans"))
			if _, err := io.ReadFull(sees, make([]byte, 11)); err != nil {
				t.Fatal(err)
			}
			breaks.SetLinger(0)
			breaks.Close()
			wantReset(t, sees)
			r.end(t, 1)
		})
	}
}

func TestRelayEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := relayPair(ctx, t)
	r.client.Write([]byte("x"))
	if _, err := io.ReadFull(r.server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	wantReset(t, r.client)
	wantReset(t, r.server)
	r.end(t, 1)
}

func TestRelayNobodyServes(t *testing.T) {
	client, waiting := connPair(t)
	refused := func(context.Context, net.Conn) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
	if n := Relay(t.Context(), []net.Conn{waiting}, refused); n != 0 {
		t.Errorf("%d served", n)
	}
	wantReset(t, client)
}
