package bench

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// errQuiet says that an idle connection is open and has nothing to read.
var errQuiet = errors.New("open and quiet")

// peekByDeadline looks at an idle connection by reading for a moment. It is
// for connections without a descriptor; a deadline in the past would not do,
// the runtime then does not look at all.
func peekByDeadline(conn net.Conn, reader *bufio.Reader) error {
	err := conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	if errors.Is(err, io.ErrClosedPipe) {
		return io.EOF // a net.Pipe says so of either end
	}
	if err != nil {
		return err
	}
	_, err = reader.Peek(1)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errQuiet
	}
	return err
}
