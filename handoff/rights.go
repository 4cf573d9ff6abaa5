package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrVersion is wrapped by [Receive]'s error when the peer's frame carries a
// version this package does not speak.
var ErrVersion = errors.New("foreign protocol version")

const (
	frameVersion   = 1
	frameMore      = 1 << 0 // another frame of the same message follows
	frameHeaderLen = 12

	// frameFilesMax is the kernel's SCM_MAX_FD: sendmsg refuses more with EINVAL.
	frameFilesMax = 253
	// fileNameMax is what fits the length byte, and what systemd allows.
	fileNameMax = 255
)

// File is an open file on its way between two processes.
//
// Sending does not take FD from the caller: the peer gets a duplicate, of the
// same open file description, and the caller's FD stays open. On receipt FD is
// the receiver's to close; it is CLOEXEC, and its O_NONBLOCK is whatever the
// sender's was, because that flag is part of the description they share.
type File struct {
	Name string // 1 to 255 bytes; need not be unique within a message
	FD   int
}

// Message is what one [Send] passes to one [Receive]: bytes, and files by name
// in the order in which they were given.
//
// On the wire a message is one or more frames on an AF_UNIX stream, since the
// kernel passes at most 253 files at a time. A frame is, in network byte order:
//
//	 0      1 byte    version, 1
//	 1      1 byte    flags: bit 0, another frame of this message follows; no other bit may be set
//	 2      2 bytes   number of files F, 0 to 253
//	 4      4 bytes   length of the names N
//	 8      4 bytes   length of the body B
//	12      N bytes   F names, each a length byte (1 to 255) and its bytes
//	12+N    B bytes   body
//
// The frame's files come as one SCM_RIGHTS with its first byte, and with no
// other. A frame that another follows has at least one file and no body.
//
// There is no negotiation: a receiver that meets another version byte reads no
// further, closes the files that came with it and reports [ErrVersion]; the
// stream cannot be used after that. A new layout takes a new version byte, and
// whoever wants to speak to both tries the newer on one connection and the
// older on the next.
type Message struct {
	Body  []byte
	Files []File
}

// Limit bounds what [Receive] accepts in one message. In each field 0 stands
// for the default and a negative number for none at all.
type Limit struct {
	Files int // default 4096
	Body  int // bytes, default 1 MiB
}

func (l Limit) withDefaults() Limit {
	return Limit{Files: boundOr(l.Files, 4096), Body: boundOr(l.Body, 1<<20)}
}

func boundOr(n, def int) int {
	if n == 0 {
		return def
	}
	return max(n, 0)
}

// CloseFiles closes the FD of every file. Errors are dropped: there is nothing
// a caller could do about them, and the number is free again in any case.
func CloseFiles(files []File) {
	for _, f := range files {
		_ = unix.Close(f.FD)
	}
}

// Credentials says who is at the other end of a unix connection, as it was when
// the connection (or the pair) was made.
type Credentials struct {
	PID      int // 0 when the peer is in a pid namespace that we cannot see into
	UID, GID uint32
}

// Peer asks the kernel for the credentials of conn's other end. The pid may have
// been reused since; the uid is what a decision can be based on.
func Peer(conn *net.UnixConn) (Credentials, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Credentials{}, fmt.Errorf("can't ask for peer credentials: %w", err)
	}
	var c Credentials
	var opErr error
	err = raw.Control(func(fd uintptr) { c, opErr = peerCredentials(int(fd)) })
	if err = errors.Join(err, opErr); err != nil {
		return Credentials{}, fmt.Errorf("can't ask for peer credentials: %w", err)
	}
	return c, nil
}

// Pair makes two connected stream sockets, both CLOEXEC: one for this process,
// ready for [Send] and [Receive], and one to be passed to a child, in blocking
// mode as a freshly started program expects. The caller closes both; closing
// its copy of child after the start is what makes the child's death visible as
// an end of stream on parent.
func Pair() (parent *net.UnixConn, child *os.File, err error) {
	fds, err := streamPair()
	if err != nil {
		return nil, nil, fmt.Errorf("can't make socket pair: %w", err)
	}
	child = os.NewFile(uintptr(fds[1]), "socketpair")
	ours := os.NewFile(uintptr(fds[0]), "socketpair")
	conn, err := net.FileConn(ours) // works on a duplicate
	_ = ours.Close()
	if err != nil {
		_ = child.Close()
		return nil, nil, fmt.Errorf("can't make socket pair: %w", err)
	}
	return conn.(*net.UnixConn), child, nil
}

// streamRaw returns conn's descriptor for use under the netpoller, or an error
// when conn keeps message boundaries: frames would be cut at their header.
func streamRaw(conn *net.UnixConn) (syscall.RawConn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var kind int
	var opErr error
	err = raw.Control(func(fd uintptr) { kind, opErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE) })
	if err = errors.Join(err, opErr); err != nil {
		return nil, err
	}
	if kind != unix.SOCK_STREAM {
		return nil, errors.New("not a stream socket")
	}
	return raw, nil
}

// followContext makes the deadline behind set expire with ctx until release is
// called. Only the context's own end moves it, so that an expired deadline
// always means an ended context.
func followContext(ctx context.Context, set func(time.Time) error) (release func()) {
	expired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = set(time.Unix(1, 0))
		close(expired)
	})
	return func() {
		if !stop() {
			<-expired
		}
		_ = set(time.Time{})
	}
}

// contextError replaces the deadline that followContext made expire by what
// ended ctx.
func contextError(ctx context.Context, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
