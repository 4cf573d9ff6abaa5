package handoff

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A listener that is closed while the endpoint refuses is not listened on again,
// nor shut down a second time: its number may be another socket's by then.
func TestCloseWhileRefusing(t *testing.T) {
	spec, err := ParseSpec("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ep, err := Open(t.Context(), spec, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ep.CloseAll()
	old, errOld := ep.Open()
	next, errNext := ep.Open()
	if errOld != nil || errNext != nil {
		t.Fatal(errOld, errNext)
	}
	if err := ep.Steer(Plan{Live: []*Listener{next}}); err != nil {
		t.Fatal(err)
	}
	if err := ep.Refuse(); err != nil {
		t.Fatal(err)
	}
	number := old.FD()
	if err := ep.Close(old); err != nil {
		t.Fatal(err)
	}
	innocent := listenAt(t, number)
	if err := ep.Resume(); err != nil {
		t.Errorf("resume: %v", err)
	}
	c, err := net.Dial("tcp", ep.Addr().String())
	if err != nil {
		t.Fatalf("after resuming: %v", err)
	}
	c.Close()
	ep.CloseAll()
	if listening, err := isListening(innocent); err != nil || !listening {
		t.Errorf("another's socket with the number listens: %v, %v", listening, err)
	}
}

// listenAt puts a listener of somebody else's at a number that is free.
func listenAt(t *testing.T, number int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if fd != number {
		if err := unix.Dup3(fd, number, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	t.Cleanup(func() { unix.Close(number) })
	if err := unix.Listen(number, 1); err != nil {
		t.Fatal(err)
	}
	return number
}

// unhiding is a kernel that hides no listener, as before 5.7 without CAP_NET_RAW.
type unhiding struct{ linux }

func (unhiding) hide(int) error { return unix.EPERM }

// Where the listener of a generation that drains can't be hidden, the address can't
// refuse, and whoever waits there goes on waiting.
func TestRefuseBesideOneThatCannotBeHidden(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	ep.steering.(*group).kernel = unhiding{}
	old := mustOpen(t, ep)
	reserve := mustOpen(t, ep)
	mustSteer(t, ep, Plan{Live: []*Listener{reserve}})
	if err := ep.Loosen(old); err != nil {
		t.Fatal(err)
	}
	if err := ep.Refuse(); !errors.Is(err, ErrServing) {
		t.Errorf("refuse: %v", err)
	}
	c, err := net.Dial("tcp", ep.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	unix.Close(acceptOne(t, reserve))
	if err := ep.Close(old); err != nil {
		t.Fatal(err)
	}
	if err := ep.Refuse(); err != nil {
		t.Errorf("when it is gone: %v", err)
	}
}

// The guard is not told of our own refusing, but is again of what daemons do after it.
func TestGuardThroughARefusal(t *testing.T) {
	g, ep := guarded(t)
	l := mustOpen(t, ep)
	if err := ep.Refuse(); err != nil {
		t.Fatal(err)
	}
	for what, want := range []uint64{0, l.Inode()} {
		var inodes []uint64
		raw, err := g.epoll.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { inodes, err = shutDown(int(fd)) })
		if err != nil || (want == 0) != (len(inodes) == 0) || want != 0 && inodes[0] != want {
			t.Errorf("%d: the guard has seen %v, %v", what, inodes, err)
		}
		if err := ep.Resume(); err != nil {
			t.Fatal(err)
		}
		shutdown(l.fd)
	}
}

// failing is a kernel whose calls fail while an error is set.
type failing struct {
	linux
	listenErr, attachErr error
}

func (k *failing) listen(fd, backlog int) error {
	if k.listenErr != nil {
		return k.listenErr
	}
	return k.linux.listen(fd, backlog)
}

func (k *failing) attach(fd int, in indices) error {
	if k.attachErr != nil {
		return k.attachErr
	}
	return k.linux.attach(fd, in)
}

// What could not listen or be steered does so at the next try.
func TestNextTry(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	k := &failing{attachErr: unix.ENOMEM}
	ep.steering.(*group).kernel = k
	if _, err := ep.Open(); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("open: %v", err)
	}
	k.attachErr = nil
	d := startDaemon(t, ep, 1, 1)
	if err := ep.Refuse(); err != nil {
		t.Fatal(err)
	}
	if err := d.listeners[0].Restore(false); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(ep.Addr().String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a listener that was restored while refusing: %v", err)
	}
	k.listenErr = unix.ENOMEM
	if err := ep.Resume(); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("resume: %v", err)
	}
	k.listenErr = nil
	if err := ep.Resume(); err != nil {
		t.Fatal(err)
	}
	d.stop(1)
	d.lns = nil
	d.serve(t, d.listeners[0])
	if id, err := ask(ep.Addr().String()); err != nil || id != 1 {
		t.Errorf("answered by %d, %v", id, err)
	}
	d.stop(1)
}
