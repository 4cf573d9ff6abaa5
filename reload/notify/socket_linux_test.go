package notify

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// The test binary also says something to a manager.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "__say" {
		c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err == nil {
			_, err = c.Write([]byte(os.Args[2]))
		}
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(leaktest.Run(m, 0))
}

// listen runs a socket until the test ends; what it hears comes in order.
func listen(t *testing.T) (*Socket, <-chan Message) {
	t.Helper()
	s, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	heard, done := make(chan Message, 16), make(chan struct{})
	go func() { defer close(done); s.Run(func(m Message) { heard <- m }) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return s, heard
}

func dial(t *testing.T, s *Socket) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.Address(), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// send a datagram with control data, which a connected [net.UnixConn] can't.
func send(t *testing.T, s *Socket, text string, control []byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendmsg(fd, []byte(text), control, &unix.SockaddrUnix{Name: s.Address()}, 0); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, heard <-chan Message) Message {
	t.Helper()
	select {
	case m := <-heard:
		return m
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was heard")
	}
	return Message{}
}

func TestSenderIsTheKernelsWord(t *testing.T) {
	s, heard := listen(t)
	dial(t, s).Write([]byte("READY=1\nMAINPID=1"))
	want := Message{PID: os.Getpid(), UID: uint32(os.Getuid()), Fields: map[string]string{"READY": "1", "MAINPID": "1"}}
	if diff := cmp.Diff(want, next(t, heard)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	child := exec.Command(os.Args[0], "__say", "STATUS=child")
	child.Env = []string{"NOTIFY_SOCKET=" + s.Address()}
	out, err := child.CombinedOutput()
	if err != nil || string(out) != "<nil>\n" {
		t.Fatalf("%s, %v", out, err)
	}
	if m := next(t, heard); m.PID != child.Process.Pid || m.Fields["STATUS"] != "child" {
		t.Errorf("the child %d was heard as %+v", child.Process.Pid, m)
	}
}

func TestSenderOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can send as somebody else")
	}
	s, heard := listen(t)
	creds := unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: 65534, Gid: 65534})
	send(t, s, "READY=1", creds)
	if m := next(t, heard); m.UID != 65534 {
		t.Errorf("heard %+v", m)
	}
}

func TestBadDatagramsAreDropped(t *testing.T) {
	s, heard := listen(t)
	c := dial(t, s)
	for _, text := range []string{"READY=1\x00", "X=" + strings.Repeat("x", 4095), strings.Repeat("READY=1\n", 4000)} {
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	longest := "X=" + strings.Repeat("x", 4094)
	c.Write([]byte(longest))
	if m := next(t, heard); m.Fields["X"] != longest[2:] {
		t.Errorf("heard %.40q", m.Fields)
	}
	c.Write([]byte("junk"))
	if m := next(t, heard); len(m.Fields) != 0 {
		t.Errorf("junk was heard as %q", m.Fields)
	}
}

func TestWithoutCredentialsNobodyIsKnown(t *testing.T) {
	for _, oob := range [][]byte{nil, {1, 2, 3}, unix.UnixCredentials(&unix.Ucred{})} {
		if m, ok := message([]byte("READY=1"), oob); ok {
			t.Errorf("%v: heard %+v", oob, m)
		}
	}
}

// Files that come along are closed, with a message that is dropped too: that is how
// a sender's BARRIER=1 is answered.
func TestFilesAreClosed(t *testing.T) {
	s, heard := listen(t)
	for text, wanted := range map[string]bool{"BARRIER=1": true, "BARRIER=1\x00": false, "X=" + strings.Repeat("x", 5000): false} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		many := make([]int, 200)
		for i := range many {
			many[i] = int(w.Fd())
		}
		send(t, s, text, unix.UnixRights(many...))
		w.Close()
		r.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%.20q: the pipe is still open: %v", text, err)
		}
		r.Close()
		if wanted {
			next(t, heard)
		}
	}
}

func TestAddressesAreTheirOwn(t *testing.T) {
	a, heardA := listen(t)
	b, heardB := listen(t)
	if a.Address() == b.Address() || !strings.HasPrefix(a.Address(), "@") {
		t.Errorf("%s and %s", a.Address(), b.Address())
	}
	dial(t, b).Write([]byte("TO=b"))
	dial(t, a).Write([]byte("TO=a"))
	if got := next(t, heardA).Fields["TO"] + next(t, heardB).Fields["TO"]; got != "ab" {
		t.Errorf("heard %s", got)
	}
}
