package handoff

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"

	"golang.org/x/sys/unix"
)

// Send passes m to the peer's [Receive]. It returns when the kernel has taken
// everything, which does not mean that the peer has read it. The files stay
// open here and may be closed as soon as Send has returned.
//
// conn must be a stream. Its write deadline is used to follow ctx and is off
// afterwards; Send and Receive may run at the same time, two Sends may not.
//
// Refused before the first byte: a name that is empty or longer than 255 bytes,
// a body of 4 GiB or more. After any other error the peer may have part of the
// message: close conn. The kernel counts files in flight: without privilege,
// more than RLIMIT_NOFILE of them unread fail with ETOOMANYREFS.
func Send(ctx context.Context, conn *net.UnixConn, m Message) error {
	if err := sendMessage(ctx, conn, m); err != nil {
		return fmt.Errorf("can't send message: %w", err)
	}
	return nil
}

func sendMessage(ctx context.Context, conn *net.UnixConn, m Message) error {
	if err := m.check(); err != nil {
		return err
	}
	if _, err := streamRaw(conn); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	release := followContext(ctx, conn.SetWriteDeadline)
	defer release()
	return contextError(ctx, sendFrames(conn, m))
}

func (m Message) check() error {
	for i, f := range m.Files {
		if f.Name == "" || len(f.Name) > fileNameMax {
			return fmt.Errorf("name of file %d has %d bytes, not 1 to %d", i, len(f.Name), fileNameMax)
		}
	}
	if uint64(len(m.Body)) > math.MaxUint32 {
		return fmt.Errorf("body of %d bytes is too long", len(m.Body))
	}
	return nil
}

func sendFrames(conn *net.UnixConn, m Message) error {
	files := m.Files
	for len(files) > frameFilesMax {
		if err := sendFrame(conn, frameMore, files[:frameFilesMax], nil); err != nil {
			return err
		}
		files = files[frameFilesMax:]
	}
	return sendFrame(conn, 0, files, m.Body)
}

func sendFrame(conn *net.UnixConn, flags byte, files []File, body []byte) error {
	head, fds := encodeHead(flags, files, len(body))
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(head, rights, nil)
	if err != nil {
		return err
	}
	// A stream may take less than all. The files went with the first byte.
	for _, rest := range [][]byte{head[n:], body} {
		if len(rest) == 0 {
			continue
		}
		if _, err := conn.Write(rest); err != nil {
			return err
		}
	}
	return nil
}

// encodeHead makes a frame up to its body, and the files to go with it.
func encodeHead(flags byte, files []File, body int) (head []byte, fds []int) {
	head = make([]byte, frameHeaderLen)
	for _, f := range files {
		head = append(head, byte(len(f.Name)))
		head = append(head, f.Name...)
		fds = append(fds, f.FD)
	}
	head[0] = frameVersion
	head[1] = flags
	binary.BigEndian.PutUint16(head[2:], uint16(len(files)))
	binary.BigEndian.PutUint32(head[4:], uint32(len(head)-frameHeaderLen))
	binary.BigEndian.PutUint32(head[8:], uint32(body))
	return head, fds
}
