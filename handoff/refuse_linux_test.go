package handoff

import (
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
