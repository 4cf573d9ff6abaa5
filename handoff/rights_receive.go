package handoff

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Receive reads one message that the peer passed with [Send]. The files in it
// belong to the caller, who closes them ([CloseFiles]); on any error every file
// that had come is closed already and the message is empty.
//
// The peer is not trusted: counts and lengths are checked against limit before
// anything is allocated for them, a file that came without a name or where none
// was due is an error, and so is one that the kernel had to leave out
// (MSG_CTRUNC, usually because RLIMIT_NOFILE is reached).
//
// The error is io.EOF, bare, when the peer closed before the first byte of a
// message, and wraps io.ErrUnexpectedEOF when it closed within one. After any
// error but io.EOF, a context's too, the stream is out of step: close conn.
//
// conn must be a stream. Its read deadline is used to follow ctx and is off
// afterwards; Receive and Send may run at the same time, two Receives may not.
// No byte beyond the message is read.
func Receive(ctx context.Context, conn *net.UnixConn, limit Limit) (Message, error) {
	m, err := receiveMessage(ctx, conn, limit)
	switch {
	case err == nil:
		return m, nil
	case err == io.EOF:
		return Message{}, io.EOF
	default:
		return Message{}, fmt.Errorf("can't receive message: %w", err)
	}
}

func receiveMessage(ctx context.Context, conn *net.UnixConn, limit Limit) (Message, error) {
	raw, err := streamRaw(conn)
	if err != nil {
		return Message{}, err
	}
	if ctx.Err() != nil {
		return Message{}, context.Cause(ctx)
	}
	release := followContext(ctx, conn.SetReadDeadline)
	defer release()
	r := frameReader{raw: raw, left: limit.withDefaults(), oob: make([]byte, unix.CmsgSpace(frameFilesMax*4))}
	m, err := r.message()
	if err != nil {
		r.closeUnclaimed()
		CloseFiles(m.Files)
		return Message{}, contextError(ctx, err)
	}
	return m, nil
}

// frameReader reads the frames of one message.
type frameReader struct {
	raw       syscall.RawConn
	left      Limit  // what the message may still have
	oob       []byte // room for the most files that one sendmsg can pass
	unclaimed []int  // files that have come and have no name yet
}

type frameHeader struct {
	more               bool
	files, names, body int
}

// message returns what it has got so far with its error, too: the caller closes
// those files.
func (r *frameReader) message() (Message, error) {
	var m Message
	for first := true; ; first = false {
		h, err := r.header()
		if err == io.EOF && !first {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return m, err
		}
		if m.Files, err = r.claim(h, m.Files); err != nil {
			return m, err
		}
		if !h.more {
			m.Body, err = r.bytes(h.body)
			return m, err
		}
	}
}

// header reads the fixed part of a frame, and the files that come with it.
func (r *frameReader) header() (frameHeader, error) {
	var b [frameHeaderLen]byte
	n, fds, err := r.receive(b[:])
	r.unclaimed = fds
	if err != nil {
		return frameHeader{}, err
	}
	// Before the rest is waited for: another version's header may be shorter.
	if b[0] != frameVersion {
		return frameHeader{}, fmt.Errorf("version %d: %w", b[0], ErrVersion)
	}
	if err := r.fill(b[n:]); err != nil {
		return frameHeader{}, err
	}
	return r.parse(b)
}

func (r *frameReader) parse(b [frameHeaderLen]byte) (frameHeader, error) {
	files := int(binary.BigEndian.Uint16(b[2:]))
	names := uint64(binary.BigEndian.Uint32(b[4:]))
	body := uint64(binary.BigEndian.Uint32(b[8:]))
	more := b[1] == frameMore
	switch {
	case b[1]&^frameMore != 0:
		return frameHeader{}, fmt.Errorf("unknown flags %#x", b[1])
	case files != len(r.unclaimed):
		return frameHeader{}, fmt.Errorf("%d files announced, %d attached", files, len(r.unclaimed))
	case files > r.left.Files:
		return frameHeader{}, fmt.Errorf("%d files above the limit", files-r.left.Files)
	case names < uint64(2*files) || names > uint64((1+fileNameMax)*files):
		return frameHeader{}, fmt.Errorf("%d bytes of names for %d files", names, files)
	case more && (files == 0 || body != 0):
		// Without this a peer could send frames for ever.
		return frameHeader{}, fmt.Errorf("frame before the last has %d files and a body of %d bytes", files, body)
	case body > uint64(r.left.Body):
		return frameHeader{}, fmt.Errorf("body of %d bytes above the limit of %d", body, r.left.Body)
	}
	return frameHeader{more: more, files: files, names: int(names), body: int(body)}, nil
}

// claim reads the frame's names and gives them to its files, in order.
func (r *frameReader) claim(h frameHeader, files []File) ([]File, error) {
	names, err := r.bytes(h.names)
	if err != nil {
		return files, err
	}
	for len(names) > 0 && len(r.unclaimed) > 0 {
		n := int(names[0])
		if n == 0 || n >= len(names) {
			return files, fmt.Errorf("name of %d bytes in the %d that are left", n, len(names)-1)
		}
		files = append(files, File{Name: string(names[1 : 1+n]), FD: r.unclaimed[0]})
		names, r.unclaimed = names[1+n:], r.unclaimed[1:]
	}
	if len(names) > 0 || len(r.unclaimed) > 0 {
		return files, fmt.Errorf("%d files without a name, %d bytes of names without a file", len(r.unclaimed), len(names))
	}
	r.left.Files -= h.files
	return files, nil
}

func (r *frameReader) closeUnclaimed() {
	for _, fd := range r.unclaimed {
		_ = unix.Close(fd)
	}
	r.unclaimed = nil
}

// bytes reads n bytes that have passed the limit.
func (r *frameReader) bytes(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	b := make([]byte, n)
	return b, r.fill(b)
}

// fill reads the whole of p, which lies within a frame: no files may come here.
func (r *frameReader) fill(p []byte) error {
	for len(p) > 0 {
		n, fds, err := r.receive(p)
		r.unclaimed = append(r.unclaimed, fds...)
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err == nil && len(fds) > 0 {
			err = fmt.Errorf("%d files attached in the middle of a frame", len(fds))
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// receive reads at least one byte into p. The files it returns are open whether
// or not there is an error.
func (r *frameReader) receive(p []byte) (n int, fds []int, err error) {
	var oobn, flags int
	var opErr error
	err = r.raw.Read(func(fd uintptr) bool {
		n, oobn, flags, fds, opErr = receiveRights(int(fd), p, r.oob)
		return opErr != unix.EAGAIN
	})
	if err == nil { // else there was no recvmsg but one that said EAGAIN
		err = opErr
	}
	if err != nil {
		return 0, fds, err
	}
	switch {
	case flags&unix.MSG_CTRUNC != 0:
		err = errors.New("files were left out by the kernel (is RLIMIT_NOFILE reached?)")
	case flags&unix.MSG_TRUNC != 0:
		err = errors.New("truncated by the kernel")
	case n == 0 && oobn == 0:
		err = io.EOF
	}
	return n, fds, err
}

// rightsIn returns the files in control data. They are open, and the caller's
// to close, even when there is an error as well.
func rightsIn(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	var fds []int
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue // credentials, when whoever made the socket asked for them
		}
		some, someErr := unix.ParseUnixRights(&m)
		fds = append(fds, some...)
		err = errors.Join(err, someErr)
	}
	return fds, err
}
