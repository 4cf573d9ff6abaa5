package handoff

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const rightsChildEnv = "GAPLESS_TEST_RIGHTS_CHILD"

func rightsContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// rightsConns returns two connected ends, closed with the test.
func rightsConns(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	a, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	b = c.(*net.UnixConn)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// rightsFile opens a file that nothing else in this process has open, so that
// its descriptors can be counted whatever other tests do.
func rightsFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "passed"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// rightsOpen counts this process's descriptors of the file called name.
func rightsOpen(t testing.TB, name string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == name {
			n++
		}
	}
	return n
}

func rightsHeader(version, flags byte, files, names, body int) []byte {
	b := []byte{version, flags}
	b = binary.BigEndian.AppendUint16(b, uint16(files))
	b = binary.BigEndian.AppendUint32(b, uint32(names))
	return binary.BigEndian.AppendUint32(b, uint32(body))
}

// rightsRepeat is n times the same descriptor.
func rightsRepeat(fd, n int) []int {
	fds := make([]int, n)
	for i := range fds {
		fds[i] = fd
	}
	return fds
}

func TestRightsArriveInOrder(t *testing.T) {
	for _, n := range []int{0, 1, 253, 254, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) { testRightsArrive(t, n) })
	}
}

func testRightsArrive(t *testing.T, n int) {
	a, b := rightsConns(t)
	sent := Message{Body: []byte(strings.Repeat("x", 100_000+n)), Files: rightsPipes(t, n)}
	done := make(chan error, 1)
	go func() { done <- Send(rightsContext(t), a, sent) }()
	got, err := Receive(rightsContext(t), b, Limit{})
	if err != nil {
		t.Fatal(err)
	}
	defer CloseFiles(got.Files)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Body, sent.Body) {
		t.Errorf("body of %d bytes arrived as another of %d", len(sent.Body), len(got.Body))
	}
	if len(got.Files) != n {
		t.Fatalf("%d files arrived of %d", len(got.Files), n)
	}
	for i := range got.Files {
		checkRight(t, sent.Files[i], got.Files[i])
	}
}

// rightsPipes returns n files, each of another inode.
func rightsPipes(t *testing.T, n int) []File {
	t.Helper()
	var files []File
	t.Cleanup(func() { CloseFiles(files) })
	for i := range n {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		unix.Close(p[1])
		files = append(files, File{Name: strings.Repeat("n", i%fileNameMax) + string(rune('a'+i%26)), FD: p[0]})
	}
	return files
}

func checkRight(t *testing.T, sent, got File) {
	t.Helper()
	if got.Name != sent.Name {
		t.Errorf("%q arrived as %q", sent.Name, got.Name)
	}
	if got.FD == sent.FD {
		t.Errorf("%s: the same descriptor, not a duplicate", sent.Name)
	}
	var a, b unix.Stat_t
	if err := unix.Fstat(sent.FD, &a); err != nil {
		t.Fatalf("%s: the sender's is closed: %v", sent.Name, err)
	}
	if err := unix.Fstat(got.FD, &b); err != nil {
		t.Fatalf("%s: not open: %v", got.Name, err)
	}
	if a.Ino != b.Ino || a.Dev != b.Dev {
		t.Errorf("%s: another file arrived", sent.Name)
	}
	if flags, err := unix.FcntlInt(uintptr(got.FD), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("%s: not CLOEXEC (%v)", got.Name, err)
	}
}

func TestRightsMessagesKeepApart(t *testing.T) {
	a, b := rightsConns(t)
	f := rightsFile(t)
	fd := int(f.Fd())
	sent := []Message{
		{Body: []byte("first")},
		{Files: []File{{"second", fd}}},
		{},
		{Body: []byte("fourth"), Files: []File{{"x", fd}, {"x", fd}}},
	}
	for _, m := range sent { // small enough for the socket's buffer
		if err := Send(rightsContext(t), a, m); err != nil {
			t.Fatal(err)
		}
	}
	a.Close()
	for i, want := range sent {
		got, err := Receive(rightsContext(t), b, Limit{})
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Body) != string(want.Body) || len(got.Files) != len(want.Files) {
			t.Errorf("message %d arrived with %q and %d files", i, got.Body, len(got.Files))
		}
		CloseFiles(got.Files)
	}
	if _, err := Receive(rightsContext(t), b, Limit{}); err != io.EOF {
		t.Errorf("after the last message: %v", err)
	}
	if n := rightsOpen(t, f.Name()); n != 1 {
		t.Errorf("%d descriptors open", n)
	}
}

// part is one sendmsg of a hostile peer.
type rightsPart struct {
	data []byte
	fds  int
}

func TestReceiveHostilePeer(t *testing.T) {
	const full = frameFilesMax
	oneFile := append(rightsHeader(1, 0, 1, 2, 3), "\x01a"...)
	manyNames := bytes.Repeat([]byte("\x01n"), full)
	frameOfMany := append(rightsHeader(1, frameMore, full, len(manyNames), 0), manyNames...)
	tests := []struct {
		name  string
		parts []rightsPart
		want  string
	}{
		{"version 0", []rightsPart{{rightsHeader(0, 0, 1, 2, 0), 1}}, "foreign protocol version"},
		{"version 2, one byte", []rightsPart{{[]byte{2}, 3}}, "foreign protocol version"},
		{"unknown flag", []rightsPart{{rightsHeader(1, 2, 0, 0, 0), 0}}, "unknown flags"},
		{"fewer files than said", []rightsPart{{rightsHeader(1, 0, 2, 4, 0), 1}}, "2 files announced, 1 attached"},
		{"more files than said", []rightsPart{{rightsHeader(1, 0, 1, 2, 0), 2}}, "1 files announced, 2 attached"},
		{"files unsaid", []rightsPart{{rightsHeader(1, 0, 0, 0, 0), full}}, "0 files announced, 253 attached"},
		{"count above the kernel's", []rightsPart{{rightsHeader(1, 0, 65535, 65535*2, 0), full}}, "65535 files announced"},
		{"files above the limit", []rightsPart{{frameOfMany, full}, {frameOfMany, full}}, "above the limit"},
		{"files without names", []rightsPart{{rightsHeader(1, 0, 2, 0, 0), 2}}, "0 bytes of names for 2 files"},
		{"fewer names than files", []rightsPart{{append(rightsHeader(1, 0, 2, 4, 0), "\x03abc"...), 2}}, "1 files without a name"},
		{"more names than files", []rightsPart{{append(rightsHeader(1, 0, 1, 4, 0), "\x01a\x01b"...), 1}}, "2 bytes of names without a file"},
		{"names without files", []rightsPart{{append(rightsHeader(1, 0, 0, 2, 0), "\x01a"...), 0}}, "2 bytes of names for 0 files"},
		{"empty name", []rightsPart{{append(rightsHeader(1, 0, 1, 2, 0), "\x00a"...), 1}}, "name of 0 bytes"},
		{"name runs over", []rightsPart{{append(rightsHeader(1, 0, 1, 2, 0), "\xffa"...), 1}}, "name of 255 bytes in the 1"},
		{"names too long", []rightsPart{{rightsHeader(1, 0, 1, 257, 0), 1}}, "257 bytes of names"},
		{"names of 4 GiB", []rightsPart{{rightsHeader(1, 0, 1, 1<<32-1, 0), 1}}, "bytes of names for 1 files"},
		{"body above the limit", []rightsPart{{append(rightsHeader(1, 0, 1, 2, 1025), "\x01a"...), 1}}, "body of 1025 bytes above the limit of 1024"},
		{"body of 4 GiB", []rightsPart{{rightsHeader(1, 0, 0, 0, 1<<32-1), 0}}, "above the limit"},
		{"endless empty frames", []rightsPart{{rightsHeader(1, 1, 0, 0, 0), 0}}, "frame before the last"},
		{"body before the last frame", []rightsPart{{rightsHeader(1, 1, 1, 2, 1), 1}}, "frame before the last"},
		{"cut in the header", []rightsPart{{rightsHeader(1, 0, 1, 2, 3)[:7], 1}}, "unexpected EOF"},
		{"cut in the names", []rightsPart{{oneFile[:13], 1}}, "unexpected EOF"},
		{"cut before the body", []rightsPart{{oneFile, 1}}, "unexpected EOF"},
		{"cut in the body", []rightsPart{{append(oneFile[:14:14], "bo"...), 1}}, "unexpected EOF"},
		{"cut between frames", []rightsPart{{frameOfMany, full}}, "unexpected EOF"},
		{"files with the header's second half", []rightsPart{{oneFile[:5], 1}, {oneFile[5:], 1}}, "in the middle of a frame"},
		{"files with the names", []rightsPart{{oneFile[:12], 1}, {oneFile[12:], 2}}, "in the middle of a frame"},
		{"files with the body", []rightsPart{{oneFile, 1}, {[]byte("body"), full}}, "in the middle of a frame"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { testReceiveHostile(t, tt.parts, tt.want) })
	}
}

func testReceiveHostile(t *testing.T, parts []rightsPart, want string) {
	a, b := rightsConns(t)
	f := rightsFile(t)
	for _, p := range parts {
		var oob []byte
		if p.fds > 0 {
			oob = unix.UnixRights(rightsRepeat(int(f.Fd()), p.fds)...)
		}
		if _, _, err := a.WriteMsgUnix(p.data, oob, nil); err != nil {
			t.Fatal(err)
		}
	}
	a.Close()
	m, err := Receive(rightsContext(t), b, Limit{Files: 300, Body: 1024})
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	if (want == "unexpected EOF") != errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		t.Errorf("%v is the wrong kind of end", err)
	}
	if strings.HasPrefix(want, "foreign") != errors.Is(err, ErrVersion) {
		t.Errorf("%v: ErrVersion missing or out of place", err)
	}
	if m.Body != nil || m.Files != nil {
		t.Errorf("an error came with a message of %d files", len(m.Files))
	}
	if n := rightsOpen(t, f.Name()); n != 1 {
		t.Errorf("%d descriptors leaked", n-1)
	}
}

func TestReceiveLimitNone(t *testing.T) {
	a, b := rightsConns(t)
	f := rightsFile(t)
	if err := Send(rightsContext(t), a, Message{Files: []File{{"x", int(f.Fd())}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Receive(rightsContext(t), b, Limit{Files: -1}); err == nil {
		t.Error("a file was accepted where none may come")
	}
	if n := rightsOpen(t, f.Name()); n != 1 {
		t.Errorf("%d descriptors leaked", n-1)
	}
}

func TestReceiveFollowsContext(t *testing.T) {
	a, b := rightsConns(t)
	cause := errors.New("test's own reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	// Half a header, so that the wait is in the middle of a message.
	if _, err := a.Write(rightsHeader(1, 0, 0, 0, 5)[:6]); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(5*time.Millisecond, func() { cancel(cause) })
	if _, err := Receive(ctx, b, Limit{}); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	// The deadline is off again: this read ends by the peer, not by time.
	a.Close()
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the context's end a read gives %d, %v", n, err)
	}
}

func TestSendFollowsContext(t *testing.T) {
	a, _ := rightsConns(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := Send(ctx, a, Message{Body: make([]byte, 64<<20)}) // nobody reads
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestSendRefuses(t *testing.T) {
	a, b := rightsConns(t)
	for name, m := range map[string]Message{
		"no name":   {Files: []File{{"", 0}}},
		"long name": {Files: []File{{strings.Repeat("n", 256), 0}}},
	} {
		if err := Send(rightsContext(t), a, m); err == nil {
			t.Errorf("%s: sent", name)
		}
	}
	if err := Send(rightsContext(t), a, Message{Files: []File{{"closed", 1 << 20}}}); !errors.Is(err, unix.EBADF) {
		t.Errorf("closed file: %v", err)
	}
	a.Close()
	if _, err := Receive(rightsContext(t), b, Limit{}); err != io.EOF {
		t.Errorf("a refused message left bytes behind: %v", err)
	}
}

func TestReceiveRefusesPacketSocket(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	f := os.NewFile(uintptr(fds[0]), "seqpacket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := Receive(rightsContext(t), c.(*net.UnixConn), Limit{}); err == nil || !strings.Contains(err.Error(), "not a stream") {
		t.Errorf("got %v", err)
	}
}

func TestPeer(t *testing.T) {
	a, _ := rightsConns(t)
	got, err := Peer(a)
	want := Credentials{PID: os.Getpid(), UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestPairIsCloseOnExec(t *testing.T) {
	parent, child, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	defer child.Close()
	raw, err := parent.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { checkPairEnd(t, "parent", fd, unix.O_NONBLOCK) })
	checkPairEnd(t, "child", child.Fd(), 0)
}

func checkPairEnd(t *testing.T, name string, fd uintptr, nonblock int) {
	t.Helper()
	if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("%s: not CLOEXEC (%v)", name, err)
	}
	if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != nonblock {
		t.Errorf("%s: flags %#x (%v)", name, flags, err)
	}
}

// The kernel drops what RLIMIT_NOFILE has no room for and says so in a flag
// only. The limit is lowered in a child: it holds for a whole process.
func TestReceiveWithoutRoomForFiles(t *testing.T) {
	if os.Getenv(rightsChildEnv) != "" {
		receiveWithoutRoom()
	}
	parent, child, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	defer child.Close()
	ctx := rightsContext(t)
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestReceiveWithoutRoomForFiles$")
	cmd.Env = append(os.Environ(), rightsChildEnv+"=1")
	cmd.ExtraFiles = []*os.File{child}
	if err := Send(ctx, parent, Message{Files: rightsPipes(t, 100)}); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// receiveWithoutRoom is the child's side. It does not return.
func receiveWithoutRoom() {
	err := func() error {
		c, err := net.FileConn(os.NewFile(3, "parent"))
		if err != nil {
			return err
		}
		before, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return err
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 50, Max: 50}); err != nil {
			return err
		}
		_, err = Receive(context.Background(), c.(*net.UnixConn), Limit{})
		if err == nil || !strings.Contains(err.Error(), "RLIMIT_NOFILE") {
			return fmt.Errorf("received: %v", err)
		}
		after, err := os.ReadDir("/proc/self/fd")
		if err != nil || len(after) != len(before) {
			return fmt.Errorf("%d descriptors before, %d after (%v)", len(before), len(after), err)
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
