package bind

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// served is the pid of who answers there.
func served(t testing.TB, addr netip.AddrPort) string {
	t.Helper()
	dialer := net.Dialer{Timeout: 20 * time.Second}
	c, err := dialer.DialContext(deadline(t), "tcp", addr.String())
	must(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	b, err := io.ReadAll(c)
	must(t, err)
	return string(b)
}

// serves has it listen, sees that, and asks it at its address.
func (d *daemon) serves(t testing.TB, fd int, at string) {
	t.Helper()
	d.begin(t, "listen %d 5", fd)
	call := d.next(t)
	if call.Op != Listen || call.FD != fd || call.Backlog != 5 {
		t.Errorf("%s", call)
	}
	must(t, call.Continue())
	if got := d.said(t); got != "<nil>" {
		t.Fatalf("listen: %s", got)
	}
	to := addrPort(t, d.do(t, "name %d", fd))
	d.begin(t, "serve %d", fd)
	if got := served(t, netip.AddrPortFrom(netip.MustParseAddr(at), to.Port())); got != strconv.Itoa(d.cmd.Process.Pid) {
		t.Errorf("served by %q", got)
	}
	if got := d.said(t); got != "<nil>" {
		t.Errorf("serve: %s", got)
	}
}

// The holder binds, and the daemon has its own socket, as if it had.
func TestKeep(t *testing.T) {
	d := start(t, setup{})
	for _, c := range []struct{ socket, addr, dial string }{
		{"tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"tcp4", "0.0.0.0:0", "127.0.0.1"},
		{"tcp6", "[::1]:0", "::1"},
		{"tcp6", "[::]:0", "127.0.0.1"}, // dual-stack
		{"tcp6", "[::ffff:127.0.0.1]:0", "127.0.0.1"},
		{"mptcp4", "127.0.0.1:0", "127.0.0.1"},
	} {
		fd := d.number(t, "socket %s cloexec nonblock", c.socket)
		if c.socket == "tcp6" {
			d.do(t, "set %d %d %d 0", fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		}
		call := d.bind(t, fd, c.addr)
		s := socketOf(t, call)
		if got := d.cmd.Process.Pid; !s.IsTCP() || s.V6Only || s.ReusePort || s.Bound || s.Listening || call.PID != got {
			t.Errorf("%s: %+v", call, s)
		}
		if same, err := call.SameNetns(s); !same || err != nil {
			t.Errorf("the same network: %v, %v", same, err)
		}
		must(t, call.Answer(s.Bind(call.Addr)))
		if got := d.said(t); got != "<nil>" {
			t.Fatalf("%s: %s", c.addr, got)
		}
		if got := d.do(t, "inode %d", fd); got != strconv.FormatUint(s.Inode, 10) || !s.ReusePort || !s.Bound {
			t.Errorf("inode %s, and %+v", got, s)
		}
		if got := d.do(t, "flags %d", fd); got != "true true" {
			t.Errorf("its flags are %s", got)
		}
		d.serves(t, fd, c.dial)
	}
}

// What the kernel says is what the daemon gets.
func TestKeepThatFails(t *testing.T) {
	d := start(t, setup{})
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	for _, c := range []struct{ socket, addr, want string }{
		{"tcp4", taken.Addr().String(), "EADDRINUSE"},
		{"tcp4", "192.0.2.1:80", "EADDRNOTAVAIL"},
		{"tcp4", "[::1]:0", "EAFNOSUPPORT"},
	} {
		call := d.bind(t, d.number(t, "socket %s", c.socket), c.addr)
		s := socketOf(t, call)
		must(t, call.Answer(s.Bind(call.Addr)))
		if got := d.said(t); got != c.want || s.Bound {
			t.Errorf("%s: %s, bound %v", c.addr, got, s.Bound)
		}
	}
}

// The uid of a group's sockets is the holder's, whoever made them; and a daemon without
// privilege gets a privileged port.
func TestKeepOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run a daemon as somebody else")
	}
	ours, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(ours)
	first := &Socket{FD: ours}
	must(t, first.inspect())
	if errno := first.Bind(netip.MustParseAddrPort("127.0.0.77:77")); errno != 0 {
		t.Fatal(errno)
	}
	d := start(t, setup{uid: 65534})
	fd := d.number(t, "socket tcp4")
	call := d.bind(t, fd, "127.0.0.77:77")
	s := socketOf(t, call)
	if s.UID != 65534 {
		t.Errorf("the socket's uid is %d", s.UID)
	}
	must(t, call.Answer(s.Bind(call.Addr)))
	if got := d.said(t); got != "<nil>" || s.UID != 0 {
		t.Errorf("bound beside root's: %s, uid %d", got, s.UID)
	}
}

// The address is the one that was read, whatever the daemon's memory holds later.
func TestAddressIsReadOnce(t *testing.T) {
	d := start(t, setup{})
	fd := d.number(t, "socket tcp4")
	d.begin(t, "mutate %d 127.0.0.81:0 127.0.0.82:0", fd)
	call := d.next(t)
	if got := d.do(t, "now"); got != "overwritten" {
		t.Fatal(got)
	}
	must(t, call.Answer(socketOf(t, call).Bind(call.Addr)))
	if got := d.said(t); got != "true" {
		t.Fatal(got)
	}
	if got := d.do(t, "name %d", fd); !strings.HasPrefix(got, "127.0.0.81:") {
		t.Errorf("it is at %s", got)
	}
}

// A worker may listen on what its parent has bound: another process, another number,
// the same inode.
func TestListenOfAnotherProcess(t *testing.T) {
	d := start(t, setup{})
	fd := d.number(t, "socket tcp4")
	call := d.bind(t, fd, "127.0.0.1:0")
	s := socketOf(t, call)
	must(t, call.Answer(s.Bind(call.Addr)))
	d.said(t)
	d.begin(t, "child %d", fd)
	call = d.next(t)
	theirs := socketOf(t, call)
	if call.Op != Listen || call.PID == d.cmd.Process.Pid || call.FD != 3 || call.Backlog != 7 || theirs.Inode != s.Inode {
		t.Errorf("%s of inode %d, bound was %d", call, theirs.Inode, s.Inode)
	}
	must(t, call.Continue())
	if got, want := d.said(t), fmt.Sprint(call.PID, " <nil> <nil>"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if now := socketState(t, s.FD); !now.Listening {
		t.Error("it does not listen")
	}
}

func socketState(t *testing.T, fd int) *Socket {
	t.Helper()
	s := &Socket{FD: fd}
	must(t, s.inspect())
	return s
}

// What is no socket is told as the kernel would.
func TestNoSocket(t *testing.T) {
	d := start(t, setup{})
	for fd, want := range map[int]unix.Errno{77: unix.EBADF, 0: unix.ENOTSOCK, -1: unix.EBADF} {
		call := d.bind(t, fd, "127.0.0.1:0")
		if _, err := call.Socket(); !errors.Is(err, want) {
			t.Errorf("fd %d: %v", fd, err)
		}
		must(t, call.Continue())
		if got := d.said(t); got != unix.ErrnoName(want) {
			t.Errorf("fd %d: %s", fd, got)
		}
	}
}

func TestAnotherNetwork(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	d := start(t, setup{})
	d.begin(t, "unshare 127.0.0.1:0")
	call := d.next(t)
	s := socketOf(t, call)
	for _, s := range []*Socket{s, nil, {FD: s.FD}} {
		if same, err := call.SameNetns(s); same || err != nil {
			t.Errorf("asked of %+v: the same is %v, %v", s, same, err)
		}
	}
	must(t, call.Continue())
	d.said(t)
}
