package handoff

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager listens as one does that keeps sockets for others: nothing is set for two
// to listen at the address. It returns what it has, and the duplicate that it gives.
func manager(t *testing.T, network, address string, set ...func(fd int)) (*net.TCPListener, *Inherited) {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			for _, f := range set {
				f(int(fd))
			}
		})
	}}
	config.SetMultipathTCP(network == "mptcp")
	network = strings.Replace(network, "mptcp", "tcp", 1)
	free, err := config.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	address = free.Addr().String() // by number, as managers bind; see bindSocket
	free.Close()
	ln, err := config.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	in, err := Inherit("web", duplicate(t, ln.(*net.TCPListener)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return ln.(*net.TCPListener), in
}

func duplicate(t *testing.T, c syscall.Conn) (fd int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(from uintptr) { fd, failed = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 3) })
	if err = errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return fd
}

func openInheritedEndpoint(t *testing.T, in *Inherited) *Endpoint {
	t.Helper()
	ep, err := Open(t.Context(), in.Spec(), OpenOptions{Inherited: in})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ep.CloseAll() })
	return ep
}

// waiting is a client that has connected and that nobody has accepted.
func waiting(t *testing.T, ln *net.TCPListener) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: 20 * time.Second}
	d.SetMultipathTCP(false)
	c, err := d.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Who waits in the socket is the first generation's; after many others, and under
// load all the time, it is the one that has the clients again.
func TestInheritedSocket(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0"} {
		t.Run(at, func(t *testing.T) {
			ln, in := manager(t, "tcp", at)
			early := waiting(t, ln)
			for round := range 3 {
				serveInherited(t, ln, in, uint32(round*100))
				if round == 0 {
					if id, err := readID(early); err != nil || id != 1 {
						t.Errorf("who waited before was answered by %d, %v", id, err)
					}
				}
				var err error
				if in, err = Inherit("web", duplicate(t, ln)); err != nil {
					t.Fatal(err)
				}
			}
			in.Close()
		})
	}
}

// serveInherited is one life of a holder: generations with numbers above from.
func serveInherited(t *testing.T, ln *net.TCPListener, in *Inherited, from uint32) {
	t.Helper()
	port := in.Addr().Port()
	ep := openInheritedEndpoint(t, in)
	d := startDaemon(t, ep, from+1, 1)
	if ep.Steering() != "cbpf" || len(ep.Warnings()) > 0 || !d.listeners[0].Inherited() || ep.Addr().Port() != port {
		t.Fatalf("the first listener is %s by %s, %q", d.listeners[0], ep.Steering(), ep.Warnings())
	}
	h := &history{}
	h.set(from + 1)
	c := startClients(h, ln.Addr().String())
	for id := from + 2; id < from+12; id++ {
		next := startDaemon(t, ep, id, 1)
		h.set(id-1, id)
		mustSteer(t, ep, Plan{Live: next.listeners})
		h.set(id)
		retire(t, ep, d, int(id)%2) // every other shuts its listener down
		d = next
	}
	c.end(t)
	endInherited(t, ln, ep, d)
}

// endInherited: who comes when the last one is told to stop waits for whoever the
// manager starts next.
func endInherited(t *testing.T, ln *net.TCPListener, ep *Endpoint, d *daemon) {
	t.Helper()
	if _, err := ep.GiveBack(); err != nil {
		t.Fatal(err)
	}
	ours := !d.listeners[0].Inherited()
	if ours {
		retire(t, ep, d, 0)
	} else {
		d.stop(1)
	}
	late := waiting(t, ln)
	if err := ep.CloseAll(); err != nil {
		t.Fatal(err)
	}
	late2 := waiting(t, ln)
	ln.SetDeadline(time.Now().Add(20 * time.Second))
	for _, c := range []net.Conn{late, late2} {
		got, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got.RemoteAddr().String() != c.LocalAddr().String() {
			t.Errorf("%s waited, and %s was accepted", c.LocalAddr(), got.RemoteAddr())
		}
		got.Close()
		c.Close()
	}
	fd := duplicate(t, ln)
	defer unix.Close(fd)
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || on != 0 {
		t.Errorf("SO_REUSEPORT is left on: %d, %v", on, err)
	}
}

// Adopting costs nobody anything who connects at that very moment, however often.
func TestAdoptingUnderLoad(t *testing.T) {
	for range 60 {
		ln, in := manager(t, "tcp", "127.0.0.1:0")
		before := &daemon{id: 1}
		before.accept(ln)
		h := &history{}
		h.set(1)
		c := startClients(h, ln.Addr().String())
		for c.answered() < 20 {
			time.Sleep(time.Millisecond)
		}
		ep := openInheritedEndpoint(t, in)
		mustOpen(t, ep)
		candidate := startDaemon(t, ep, 2, 1)
		for enough := c.answered() + 20; c.answered() < enough; {
			time.Sleep(time.Millisecond)
		}
		c.end(t)
		candidate.stop(1)
		if err := ep.CloseAll(); err != nil {
			t.Fatal(err)
		}
		before.stop(1)
	}
}

func (c *clients) answered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// A daemon that shuts the socket down does so for the manager too: it must listen
// again, as soon as the daemon has gone or is found out.
func TestInheritedSocketThatWasShutDown(t *testing.T) {
	ln, in := manager(t, "tcp", "127.0.0.1:0")
	ep := openInheritedEndpoint(t, in)
	first := startDaemon(t, ep, 1, 1)
	second := startDaemon(t, ep, 2, 1)
	mustSteer(t, ep, Plan{Live: second.listeners})
	loosen(t, ep, first)
	first.stop(0)
	closeAll(t, ep, first)
	if seen := askMany(t, ep, 50); seen[2] != 50 {
		t.Errorf("answered by %v", seen)
	}
	l, err := ep.Reserve()
	if err != nil || !l.Inherited() {
		t.Fatalf("the inherited socket is not given out again: %s, %v", l, err)
	}
	third := &daemon{id: 3, listeners: []*Listener{l}}
	third.serve(t, l)
	mustSteer(t, ep, Plan{Live: third.listeners})
	if seen := askMany(t, ep, 50); seen[3] != 50 {
		t.Errorf("then by %v", seen)
	}
	retire(t, ep, second, 0)
	endInherited(t, ln, ep, third)
}

// It is never made to refuse: clients are to wait for whoever has it next.
func TestInheritedSocketIsNotRefused(t *testing.T) {
	for _, isShared := range []bool{false, true} {
		ln, in := manager(t, "tcp", "127.0.0.1:0")
		ep, err := Open(t.Context(), in.Spec(), OpenOptions{Inherited: in, Shared: isShared})
		if err != nil {
			t.Fatal(err)
		}
		mustOpen(t, ep)
		if err := ep.Refuse(); !errors.Is(err, ErrInherited) {
			t.Errorf("refuse: %v", err)
		}
		waiting(t, ln)
		if err := ep.CloseAll(); err != nil {
			t.Fatal(err)
		}
		waiting(t, ln)
	}
}

// What can't be steered is shared, and says why; generations serve all the same.
func TestInheritedSocketThatIsShared(t *testing.T) {
	ln, in := manager(t, "mptcp", "127.0.0.1:0")
	if !in.mptcp {
		t.Skip("this kernel has no MPTCP")
	}
	ep := openInheritedEndpoint(t, in)
	first := startDaemon(t, ep, 1, 1)
	if ep.Steering() != "shared" || len(ep.Warnings()) != 1 || !strings.Contains(ep.Warnings()[0], "MPTCP") {
		t.Errorf("steering is %s, and the warnings %q", ep.Steering(), ep.Warnings())
	}
	second := startDaemon(t, ep, 2, 1)
	first.stop(1)
	mustSteer(t, ep, Plan{Live: second.listeners})
	closeAll(t, ep, first)
	if seen := askMany(t, ep, 20); seen[2] != 20 {
		t.Errorf("answered by %v", seen)
	}
	second.stop(1)
	if err := ep.CloseAll(); err != nil {
		t.Fatal(err)
	}
	waiting(t, ln)
}

// The manager has not set SO_REUSEADDR, and somebody waits: that connection has the
// address alone.
func TestInheritedSocketWithAnExclusiveConnection(t *testing.T) {
	ln, in := manager(t, "tcp", "127.0.0.1:0", func(fd int) { unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0) })
	if on, _ := in.get(unix.SOL_SOCKET, unix.SO_REUSEADDR); on != 0 {
		t.Skip("Go sets SO_REUSEADDR later than this test can unset it")
	}
	waiting(t, ln)
	ep := openInheritedEndpoint(t, in)
	mustOpen(t, ep)
	if ep.Steering() != "shared" || !strings.Contains(strings.Join(ep.Warnings(), ""), "had accepted before") {
		t.Errorf("steering is %s, and the warnings %q", ep.Steering(), ep.Warnings())
	}
}

// A socket of another user's: who may give his own to that user can steer.
func TestInheritedSocketOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to have a socket of another user's")
	}
	ln, in := manager(t, "tcp", "127.0.0.1:0")
	in.Close()
	fd := duplicate(t, ln)
	if err := unix.Fchown(fd, 12345, -1); err != nil {
		t.Fatal(err)
	}
	in, err := Inherit("", fd)
	if err != nil {
		t.Fatal(err)
	}
	ep := openInheritedEndpoint(t, in)
	first, second := startDaemon(t, ep, 1, 1), startDaemon(t, ep, 2, 1)
	if seen := askMany(t, ep, 50); ep.Steering() != "cbpf" || seen[1] != 50 {
		t.Errorf("answered by %v with %s", seen, ep.Steering())
	}
	first.stop(1)
	second.stop(1)
}

// What systemd.socket(5) sets on the socket, later generations' have too.
func TestInheritedOptionsAreCarried(t *testing.T) {
	set := map[sockopt]int{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE}: 1, {unix.SOL_SOCKET, unix.SO_PRIORITY}: 3, {unix.SOL_SOCKET, unix.SO_RCVBUF}: 70000,
		{unix.IPPROTO_TCP, unix.TCP_NODELAY}: 1, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}: 77, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}: 7,
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}: 4, {unix.IPPROTO_IP, unix.IP_TOS}: 16, {unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS}: 9,
		{unix.IPPROTO_IPV6, unix.IPV6_FREEBIND}: 1, {unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT}: 3, {unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}: 1,
		{unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX}: 1, {unix.SOL_SOCKET, unix.SO_PROTOCOL}: unix.IPPROTO_TCP,
	}
	_, in := manager(t, "tcp6", "[::1]:0", func(fd int) {
		for o, value := range set {
			unix.SetsockoptInt(fd, o.level, o.name, value)
		}
		unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
	})
	if err := unix.Listen(in.fd, 17); err != nil {
		t.Fatal(err)
	}
	in, err := Inherit("", in.fd)
	if err != nil {
		t.Fatal(err)
	}
	ep := openInheritedEndpoint(t, in)
	first, later := mustOpen(t, ep), mustOpen(t, ep)
	if ep.Steering() != "cbpf" {
		t.Fatalf("steering is %s: %q", ep.Steering(), ep.Warnings())
	}
	mustSteer(t, ep, Plan{Live: []*Listener{later}})
	for o := range set {
		want, err1 := unix.GetsockoptInt(first.fd, o.level, o.name)
		got, err2 := unix.GetsockoptInt(later.fd, o.level, o.name)
		if err := errors.Join(err1, err2); err != nil || got != want {
			t.Errorf("option %d/%d is %d, and %d in the inherited one (%v)", o.level, o.name, got, want, err)
		}
	}
	if name, err := unix.GetsockoptString(later.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err != nil || strings.TrimRight(name, "\x00") != "reno" {
		t.Errorf("congestion control is %q, %v", name, err)
	}
	if _, limit, err := later.Queue(); err != nil || limit != 17 {
		t.Errorf("the backlog is %d, %v", limit, err)
	}
}

func TestWhatCantBeInherited(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	ln, in := manager(t, "tcp", "127.0.0.1:0")
	defer in.Close()
	client := waiting(t, ln)
	file, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	fds := []int{pair[0], pair[1], file, duplicate(t, udp.(*net.UDPConn)), duplicate(t, client.(*net.TCPConn))}
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for fd, want := range map[int]string{fds[0]: "unix socket", file: "no socket", fds[3]: "udp socket", fds[4]: "Accept=no"} {
		in, err := Inherit("x", fd)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "(x)") {
			t.Errorf("want %q: %v, %v", want, in, err)
		}
	}
}

func TestInheritedMatchesSpecs(t *testing.T) {
	for _, c := range []struct {
		network, at string
		matching    []string
		others      []string
	}{
		{"tcp4", "127.0.0.1:0", []string{"127.0.0.1:P", "tcp4:127.0.0.1:P", "localhost:P"}, []string{"P", "0.0.0.0:P", "127.0.0.1:1", "127.0.0.1:0"}},
		{"tcp", "[::]:0", []string{"P", "[::]:P"}, []string{"tcp6:P", "tcp4:P", "[::1]:P"}},
		{"tcp6", "[::]:0", []string{"tcp6:P"}, []string{"P"}},
	} {
		_, in := manager(t, c.network, c.at)
		port := in.Spec().Address()
		port = port[strings.LastIndexByte(port, ':')+1:]
		for i, text := range append(c.matching, c.others...) {
			s := spec(t, strings.ReplaceAll(text, "P", port))
			if got := in.ListensAt(context.Background(), s); got != (i < len(c.matching)) {
				t.Errorf("%s %s matches %s: %t", c.network, in.Addr(), s, got)
			}
		}
		in.Close()
	}
}

// Random generations, some of which shut what they have down.
func TestInheritedSocketInRandomOrder(t *testing.T) {
	ln, in := manager(t, "tcp", "127.0.0.1:0")
	ep := openInheritedEndpoint(t, in)
	random, seed := seeded()
	t.Logf("seed %d", seed)
	s := begin(t, ep, &history{}, random, 0)
	c := startClients(s.h, ln.Addr().String())
	for range rounds(30) {
		s.step()
	}
	c.end(t)
	s.end()
	waiting(t, ln)
}
