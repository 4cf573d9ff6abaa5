//go:build !linux

package bench

import (
	"bufio"
	"net"
)

// peek says how an idle connection stands: errQuiet, nil when there are bytes
// (reader then holds some), io.EOF when the server has closed it, or the error
// that it met.
func peek(conn net.Conn, reader *bufio.Reader) error {
	if reader.Buffered() > 0 {
		return nil
	}
	return peekByDeadline(conn, reader)
}
