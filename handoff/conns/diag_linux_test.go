package conns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each case is a listener and a client's way to it.
var ways = []struct {
	name            string
	network, listen string
	dial            string // host that the client connects to
	family          int
}{
	{"IPv4", "tcp4", "127.0.0.1:0", "127.0.0.1", unix.AF_INET},
	{"IPv4 wildcard", "tcp4", "0.0.0.0:0", "127.0.0.1", unix.AF_INET},
	{"IPv6", "tcp6", "[::1]:0", "::1", unix.AF_INET6},
	{"dual-stack, IPv4 client", "tcp", "[::]:0", "127.0.0.1", unix.AF_INET6},
	{"dual-stack, IPv6 client", "tcp", "[::]:0", "::1", unix.AF_INET6},
}

func connect(t testing.TB, ln net.Listener, host string) *net.TCPConn {
	t.Helper()
	return dial(t, "tcp", net.JoinHostPort(host, strconv.Itoa(int(portOf(ln)))))
}

func TestLifeOfAConnection(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			d := openDiag(t)
			ln := listen(t, way.network, way.listen, nil)
			port := portOf(ln)
			client := connect(t, ln, way.dial)
			live := Set(Established, CloseWait)

			waiting := one(t, d, port, live)
			if waiting.Inode != 0 || waiting.State != Established || waiting.Cookie == 0 || waiting.Family != way.family {
				t.Errorf("in the accept queue: %+v, want ESTABLISHED in family %d without an inode", waiting, way.family)
			}
			if want := server(client); waiting.Local != want.Local || waiting.Remote != want.Remote {
				t.Errorf("addresses %s %s, want %s %s", waiting.Local, waiting.Remote, want.Local, want.Remote)
			}

			conn := accept(t, ln)
			taken := one(t, d, port, live)
			if taken.Inode != inodeOf(t, conn) || taken.Cookie != waiting.Cookie {
				t.Errorf("accepted: %+v, want inode %d and cookie %d", taken, inodeOf(t, conn), waiting.Cookie)
			}
			if taken.Info == nil || taken.Info.Answered() {
				t.Errorf("answered before anything was sent: %+v", taken.Info)
			}

			write(t, conn, "hello")
			if now := one(t, d, port, live); !now.Info.Answered() {
				t.Errorf("not answered after data was sent: %+v", now.Info)
			}
			write(t, client, "12345")
			eventually(t, "5 bytes unread", func() bool { return one(t, d, port, live).RQueue == 5 })
			if idle := one(t, d, port, live).Idle(); idle != 0 {
				t.Errorf("idle for %v with bytes unread", idle)
			}

			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "CLOSE_WAIT", func() bool { return one(t, d, port, live).State == CloseWait })
			if half := one(t, d, port, live); half.Cookie != waiting.Cookie || half.Inode == 0 {
				t.Errorf("half-closed: %+v, want the same cookie and an inode", half)
			}
			conn.Close()
			eventually(t, "the end", func() bool {
				return len(dump(t, d, Query{Ports: []uint16{port}, States: live})) == 0
			})
		})
	}
}

func write(t testing.TB, c *net.TCPConn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// A listener with TCP_DEFER_ACCEPT lets connections stay half-open until the client sends something.
func deferAccept(fd int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30)
}

func TestHalfOpen(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			d := openDiag(t)
			ln := listen(t, way.network, way.listen, deferAccept)
			client := connect(t, ln, way.dial)

			half := one(t, d, portOf(ln), Set(SynRecv))
			if half.Cookie == 0 || half.Inode != 0 || half.Info != nil || half.Family != way.family {
				t.Errorf("half-open: %+v, want a cookie, no inode, no info", half)
			}
			found, ok, err := d.Lookup(deadline(t), server(client))
			if err != nil || !ok || found.State != SynRecv || found.Cookie != half.Cookie {
				t.Errorf("lookup = %+v, %v, %v; want the half-open one, cookie %d", found, ok, err, half.Cookie)
			}

			write(t, client, "x")
			accept(t, ln)
			if got := one(t, d, portOf(ln), Set(Established)); got.Cookie != half.Cookie {
				t.Errorf("the cookie was %d while half-open and is %d now", half.Cookie, got.Cookie)
			}
			found, ok, err = d.Lookup(deadline(t), half)
			if err != nil || !ok || found.State != Established {
				t.Errorf("lookup by the half-open one's cookie = %+v, %v, %v", found, ok, err)
			}
		})
	}
}

// Nobody will ever accept such a connection, but it is there until its timer strikes: whoever waits for half-open ones to go
// needs a deadline.
func TestHalfOpenOutlivesItsListener(t *testing.T) {
	d := openDiag(t)
	ln := listen(t, "tcp4", "127.0.0.1:0", deferAccept)
	client := connect(t, ln, "127.0.0.1")
	ln.Close()
	found, ok, err := d.Lookup(deadline(t), server(client))
	if err != nil || !ok || found.State != SynRecv {
		t.Errorf("lookup = %+v, %v, %v; want it half-open", found, ok, err)
	}
	if got := dump(t, d, Query{Ports: []uint16{found.Local.Port()}}); len(got) != 1 || got[0].Cookie != found.Cookie {
		t.Errorf("dump = %+v, want the half-open one", got)
	}
}

func TestLookup(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			d := openDiag(t)
			ln := listen(t, way.network, way.listen, nil)
			client := connect(t, ln, way.dial)
			conn := accept(t, ln)
			dumped := one(t, d, portOf(ln), Set(Established))

			for name, question := range map[string]Conn{
				"any cookie":   server(client),
				"AnyCookie":    withCookie(server(client), AnyCookie),
				"as dumped":    dumped,
				"from getsock": {Local: conn.LocalAddr().(*net.TCPAddr).AddrPort(), Remote: conn.RemoteAddr().(*net.TCPAddr).AddrPort()},
			} {
				found, ok, err := d.Lookup(deadline(t), question)
				if err != nil || !ok || found.Cookie != dumped.Cookie || found.Info == nil || found.Inode != dumped.Inode {
					t.Errorf("%s: %+v, %v, %v; want %+v", name, found, ok, err, dumped)
				}
			}

			other := withCookie(dumped, dumped.Cookie+1)
			if found, ok, err := d.Lookup(deadline(t), other); ok || err != nil {
				t.Errorf("another cookie: %+v, %v, %v; want not found", found, ok, err)
			}
			// The kernel answers this one with the listener.
			stranger := server(client)
			stranger.Remote = netip.AddrPortFrom(stranger.Remote.Addr(), 1)
			if found, ok, err := d.Lookup(deadline(t), stranger); ok || err != nil {
				t.Errorf("no such client: %+v, %v, %v; want not found", found, ok, err)
			}
			if err := conn.SetLinger(0); err != nil {
				t.Fatal(err)
			}
			conn.Close()
			if found, ok, err := d.Lookup(deadline(t), dumped); ok || err != nil {
				t.Errorf("after the reset: %+v, %v, %v; want not found", found, ok, err)
			}
		})
	}
}

func withCookie(c Conn, cookie uint64) Conn {
	c.Cookie = cookie
	return c
}

func TestLookupRefusesMixedAddresses(t *testing.T) {
	d := openDiag(t)
	for _, c := range []Conn{
		{},
		{Local: netip.MustParseAddrPort("127.0.0.1:1"), Remote: netip.MustParseAddrPort("[::1]:1")},
	} {
		if _, ok, err := d.Lookup(deadline(t), c); ok || err == nil {
			t.Errorf("lookup of %v %v = %v, %v; want an error", c.Local, c.Remote, ok, err)
		}
	}
}

func TestListeners(t *testing.T) {
	d := openDiag(t)
	both := listen(t, "tcp", "[::]:0", nil)
	only6 := listen(t, "tcp6", "[::]:0", nil)
	connect(t, both, "127.0.0.1")
	ports := []uint16{portOf(both), portOf(only6)}
	eventually(t, "one in the queue", func() bool {
		for _, c := range dump(t, d, Query{Ports: ports, States: Set(Listen)}) {
			if c.Local.Port() == portOf(both) {
				return c.RQueue == 1
			}
		}
		return false
	})
	for _, c := range dump(t, d, Query{Ports: ports, States: Set(Listen)}) {
		if c.V6Only != (c.Local.Port() == portOf(only6)) || c.State != Listen || c.Inode == 0 || c.WQueue == 0 {
			t.Errorf("listener %+v", c)
		}
	}
}

// What was never sent counts its time from the handshake: this is how the age of an unanswered connection is known.
func TestLastDataSentBeginsAtTheHandshake(t *testing.T) {
	d := openDiag(t)
	ln := listen(t, "tcp4", "127.0.0.1:0", nil)
	before := time.Now()
	connect(t, ln, "127.0.0.1")
	const some = 60 * time.Millisecond
	var first time.Duration
	eventually(t, "LastDataSent grows", func() bool {
		c := one(t, d, portOf(ln), Set(Established))
		if first == 0 {
			first = c.Info.LastDataSent
		}
		return c.Info.LastDataSent >= some && c.Idle() >= some
	})
	c := one(t, d, portOf(ln), Set(Established))
	if limit := time.Since(before) + 20*time.Millisecond; c.Info.LastDataSent > limit {
		t.Errorf("data was last sent %v ago on a connection at most %v old", c.Info.LastDataSent, limit)
	}
}

func TestPorts(t *testing.T) {
	d := openDiag(t)
	for _, n := range []int{1, 2, 3, maxPorts - 1, maxPorts, maxPorts + 1, 100} {
		var ports []uint16
		want := map[uint16]bool{}
		for range n {
			ln := listen(t, "tcp4", "127.0.0.1:0", nil)
			ports = append(ports, portOf(ln))
			want[portOf(ln)] = true
		}
		listen(t, "tcp4", "127.0.0.1:0", nil) // one that was not asked for
		got := dump(t, d, Query{Ports: append(ports, ports...), States: Set(Listen)})
		for _, c := range got {
			if !want[c.Local.Port()] {
				t.Errorf("%d ports: port %d was not asked for", n, c.Local.Port())
			}
			delete(want, c.Local.Port())
		}
		if len(got) != n || len(want) != 0 {
			t.Errorf("%d ports: %d sockets, missing %v", n, len(got), want)
		}
	}
}

func TestFamilies(t *testing.T) {
	d := openDiag(t)
	ln := listen(t, "tcp", "[::]:0", nil)
	connect(t, ln, "127.0.0.1")
	ports := []uint16{portOf(ln)}
	if got := dump(t, d, Query{Ports: ports, Families: []int{unix.AF_INET}, States: Set(Established)}); len(got) != 0 {
		t.Errorf("AF_INET: %+v, want none", got)
	}
	if got := dump(t, d, Query{Ports: ports, Families: []int{unix.AF_INET6}, States: Set(Established)}); len(got) != 1 {
		t.Errorf("AF_INET6: %+v, want one", got)
	}
	_, err := d.Dump(deadline(t), Query{Families: []int{unix.AF_UNSPEC}})
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("AF_UNSPEC: %v, want ENOENT", err)
	}
	// An error of the kernel's leaves the Diag usable.
	one(t, d, portOf(ln), Set(Established))
}

// crowd opens n connections to a new listener and accepts them.
func crowd(t testing.TB, n int) (port uint16) {
	t.Helper()
	ln := listen(t, "tcp4", "127.0.0.1:0", nil)
	for range n {
		connect(t, ln, "127.0.0.1")
		accept(t, ln)
	}
	return portOf(ln)
}

func TestManyParts(t *testing.T) {
	const n = 300 // of about 400 bytes each, in reads of at most 32 KiB
	d := openDiag(t)
	port := crowd(t, n)
	cookies := map[uint64]bool{}
	for _, c := range dump(t, d, Query{Ports: []uint16{port}, States: Set(Established), Info: true}) {
		cookies[c.Cookie] = true
	}
	if len(cookies) != n {
		t.Errorf("%d different connections, want %d", len(cookies), n)
	}
}

func TestAbandonedDump(t *testing.T) {
	const n = 300
	d := openDiag(t)
	port := crowd(t, n)
	// The request is sent and one part of the answer read: what a deadline leaves that strikes in the middle of a dump.
	d.seq++
	a := &answer{seq: d.seq}
	if err := d.send(dumpRequest(a.seq, unix.AF_INET, Query{Ports: []uint16{port}, Info: true})); err != nil {
		t.Fatal(err)
	}
	d.unfinished = a
	if fault, err := d.step(deadline(t)); fault != nil || err != nil || a.done {
		t.Fatalf("first part: %v, %v, done %v; want more to come", fault, err, a.done)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Dump(cancelled, Query{}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context: %v", err)
	}
	if got := dump(t, d, Query{Ports: []uint16{port}, States: Set(Established)}); len(got) != n {
		t.Errorf("%d connections after an abandoned dump, want %d", len(got), n)
	}
}

func TestDeadlineHoldsWithoutAnAnswer(t *testing.T) {
	d := openDiag(t)
	d.unfinished = &answer{seq: 1} // that never comes: nothing was asked
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := d.Dump(ctx, Query{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dump = %v, want the deadline's error", err)
	}
}

func TestClosed(t *testing.T) {
	d := openDiag(t)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Dump(deadline(t), Query{}); !errors.Is(err, unix.EBADF) {
		t.Errorf("dump on a closed Diag: %v, want EBADF", err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func BenchmarkDump1000(b *testing.B) {
	d := openDiag(b)
	port := crowd(b, 1000)
	for _, info := range []bool{false, true} {
		b.Run("info="+strconv.FormatBool(info), func(b *testing.B) {
			q := Query{Ports: []uint16{port}, Families: []int{unix.AF_INET}, States: Set(Established), Info: info}
			for b.Loop() {
				if got := dump(b, d, q); len(got) != 1000 {
					b.Fatalf("%d connections", len(got))
				}
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	d := openDiag(b)
	ln := listen(b, "tcp4", "127.0.0.1:0", nil)
	question := server(connect(b, ln, "127.0.0.1"))
	ctx := deadline(b)
	for b.Loop() {
		if _, ok, err := d.Lookup(ctx, question); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
