package bench

import (
	"bufio"
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// peek says without waiting how an idle connection stands: errQuiet, nil when
// there are bytes (reader then holds some), io.EOF when the server has closed
// it, or the error that it met.
func peek(conn net.Conn, reader *bufio.Reader) error {
	if reader.Buffered() > 0 {
		return nil
	}
	source, ok := conn.(syscall.Conn)
	if !ok {
		return peekByDeadline(conn, reader)
	}
	// The deadline of the last exchange may have passed, and would be all
	// that the runtime tells us.
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	raw, err := source.SyscallConn()
	if err != nil {
		return err
	}
	if err := peekRaw(raw); err != nil {
		return err
	}
	_, err = reader.Peek(1)
	return err
}

// peekRaw returns nil if a read would not wait: for bytes or for the end.
func peekRaw(raw syscall.RawConn) error {
	var seen error
	err := raw.Read(func(fd uintptr) bool {
		_, _, seen = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return true // never wait
	})
	if err != nil {
		return err
	}
	if errors.Is(seen, unix.EAGAIN) {
		return errQuiet
	}
	return seen
}
