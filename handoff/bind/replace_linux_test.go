package bind

import (
	"errors"
	"net/netip"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// held is a listener of the holder's.
func held(t testing.TB) (fd int, at netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, unix.Listen(fd, 5))
	at, err = (&Socket{FD: fd}).Addr()
	must(t, err)
	return fd, at
}

// The daemon has the holder's listener at its own number, with its own flags.
func TestReplace(t *testing.T) {
	d := start(t, setup{})
	for _, c := range []struct{ flags, want string }{{"", "false false"}, {"cloexec", "true false"}, {"nonblock", "false true"}, {"cloexec nonblock", "true true"}} {
		with, at := held(t)
		ours := socketState(t, with)
		fd := d.number(t, "socket tcp4 %s", c.flags)
		call := d.bind(t, fd, at.String())
		must(t, call.Replace(with, socketOf(t, call)))
		must(t, call.Answer(0))
		if got := d.said(t); got != "<nil>" {
			t.Fatal(got)
		}
		if got := d.do(t, "inode %d", fd); got != strconv.FormatUint(ours.Inode, 10) {
			t.Errorf("inode %s, the holder's is %d", got, ours.Inode)
		}
		if got := d.do(t, "flags %d", fd); got != c.want {
			t.Errorf("%s: close-on-exec and non-blocking are %s", c.flags, got)
		}
		if got := d.do(t, "name %d", fd); got != at.String() {
			t.Errorf("it is at %s, the holder's is at %s", got, at)
		}
		d.serves(t, fd, "127.0.0.1")
	}
}

// O_NONBLOCK is taken off, too, if the daemon's had none.
func TestReplaceMakesBlocking(t *testing.T) {
	d := start(t, setup{})
	with, at := held(t)
	must(t, unix.SetNonblock(with, true))
	fd := d.number(t, "socket tcp4")
	call := d.bind(t, fd, at.String())
	must(t, call.Replace(with, nil))
	must(t, call.Answer(0))
	d.said(t)
	if got := d.do(t, "flags %d", fd); got != "false false" {
		t.Errorf("its flags are %s", got)
	}
}

// Nothing is replaced but what was looked at.
func TestReplaceOfWhatHasMoved(t *testing.T) {
	d := start(t, setup{})
	with, at := held(t)
	fd := d.number(t, "socket tcp4")
	call := d.bind(t, fd, at.String())
	if err := call.Replace(with, socketState(t, with)); !errors.Is(err, ErrMoved) {
		t.Errorf("it is another socket: %v", err)
	}
	must(t, call.Answer(unix.EAGAIN))
	if got := d.said(t); got != "EAGAIN" {
		t.Error(got)
	}
	call = d.bind(t, 77, at.String())
	if err := call.Replace(with, nil); !errors.Is(err, unix.EBADF) {
		t.Errorf("there is none: %v", err)
	}
	must(t, call.Continue())
	d.said(t)
}

// An MPTCP socket gives way to a plain one that is as it was.
func TestPlain(t *testing.T) {
	d := start(t, setup{})
	for _, six := range []bool{false, true} {
		kind, at, level := "mptcp4", "127.0.0.1:0", unix.IPPROTO_IP
		if six {
			kind, at = "mptcp6", "[::1]:0"
		}
		fd := d.number(t, "socket %s nonblock", kind)
		set := []sockopt{{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.SOL_SOCKET, unix.SO_RCVBUF, 65536}, {unix.SOL_SOCKET, unix.SO_PRIORITY, 3}}
		if six {
			set = append(set, sockopt{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1})
		} else {
			set = append(set, sockopt{level, unix.IP_TOS, 0x10})
		}
		for _, o := range set {
			if got := d.do(t, "set %d %d %d %d", fd, o.level, o.name, o.value); got != "<nil>" {
				t.Fatalf("%+v: %s", o, got)
			}
		}
		call := d.bind(t, fd, at)
		s := socketOf(t, call)
		plain, err := s.Plain()
		must(t, err)
		p := socketState(t, plain)
		t.Cleanup(func() { p.Close() })
		if !s.IsMPTCP() || p.IsMPTCP() || !p.IsTCP() || p.Family != s.Family || p.V6Only != s.V6Only {
			t.Errorf("%+v of %+v", p, s)
		}
		if err := CarryOptions(s.FD, plain); err != nil {
			t.Errorf("carrying: %v", err)
		}
		for _, o := range set {
			want, err1 := s.get(o.level, o.name)
			got, err2 := p.get(o.level, o.name)
			if got != want || errors.Join(err1, err2) != nil {
				t.Errorf("%+v: %d, %v, was %d, %v", o, got, err2, want, err1)
			}
		}
		if errno := p.Bind(call.Addr); errno != 0 {
			t.Fatal(errno)
		}
		must(t, call.Replace(plain, s))
		must(t, call.Answer(0))
		d.said(t)
		if got := d.do(t, "flags %d", fd); got != "false true" {
			t.Errorf("its flags are %s", got)
		}
		d.serves(t, fd, call.Addr.Addr().String())
	}
}

type sockopt struct{ level, name, value int }

func TestCarryOptions(t *testing.T) {
	from, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	defer unix.Close(from)
	to, _ := held(t)
	set := []sockopt{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 7},
		{unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 5}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 99}, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 12345},
		{unix.IPPROTO_IP, unix.IP_FREEBIND, 1}, {unix.SOL_SOCKET, unix.SO_SNDBUF, 32768},
	}
	for _, o := range set {
		must(t, unix.SetsockoptInt(from, o.level, o.name, o.value))
	}
	must(t, unix.SetsockoptLinger(from, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 4}))
	must(t, CarryOptions(from, to))
	for _, o := range set {
		want, _ := unix.GetsockoptInt(from, o.level, o.name)
		if got, err := unix.GetsockoptInt(to, o.level, o.name); got != want || err != nil {
			t.Errorf("%+v: %d, want %d, %v", o, got, want, err)
		}
	}
	if l, err := unix.GetsockoptLinger(to, unix.SOL_SOCKET, unix.SO_LINGER); err != nil || l.Linger != 4 {
		t.Errorf("linger %+v, %v", l, err)
	}
	if flags, _ := unix.FcntlInt(uintptr(to), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
		t.Error("it blocks")
	}
}

func TestInEpoll(t *testing.T) {
	d := start(t, setup{})
	fd := d.number(t, "socket tcp4")
	other := d.number(t, "socket tcp4")
	call := d.bind(t, fd, "127.0.0.1:0")
	s := socketOf(t, call)
	must(t, call.Answer(0))
	d.said(t)
	is := func(want bool, when string) {
		t.Helper()
		if got, err := InEpoll(call.PID, s.Inode, fd); got != want || err != nil {
			t.Errorf("%s: %v, %v", when, got, err)
		}
	}
	is(false, "before")
	d.do(t, "epoll %d", other)
	is(false, "with another one")
	d.do(t, "epoll %d", fd)
	is(true, "registered")
	d.do(t, "dup2 %d 50", fd)
	d.do(t, "dup2 %d %d", other, fd)
	is(true, "at another number by now")
}

func TestRegistered(t *testing.T) {
	const line = "pos:\t0\nflags:\t02\ntfd:        5 events:       19 data:                5  pos:0 ino:2d9c7 sdev:8\n"
	for _, c := range []struct {
		text  string
		inode uint64
		dev   uint64
		fd    int
		want  bool
	}{
		{line, 0x2d9c7, 8, 9, true},
		{line, 0x2d9c8, 8, 5, false},
		{line, 0x2d9c7, 9, 5, false},
		{"tfd: 5 events: 19 data: 5\n", 1, 8, 5, true},
		{"tfd: 5 events: 19 data: 5\n", 1, 8, 6, false},
		{"", 1, 8, 6, false},
	} {
		if got := registered([]byte(c.text), c.inode, c.dev, c.fd); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
