//go:build !linux

package notify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// Socket receives the messages of one generation. The sender can't be checked here;
// the directory of the socket is the holder's alone.
type Socket struct {
	conn *net.UnixConn
	dir  string
}

// Listen makes a socket in a directory of its own.
func Listen() (*Socket, error) {
	dir, err := os.MkdirTemp("", "gapless-notify-")
	if err != nil {
		return nil, fmt.Errorf("can't make a notify socket: %w", err)
	}
	s := &Socket{dir: dir}
	s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.Address(), Net: "unixgram"})
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("can't make a notify socket: %w", err)
	}
	return s, nil
}

// Address is the value of NOTIFY_SOCKET.
func (s *Socket) Address() string { return filepath.Join(s.dir, "notify") }

// Close ends Run.
func (s *Socket) Close() error { return errors.Join(s.conn.Close(), os.RemoveAll(s.dir)) }

// Run calls f with each message until the socket is closed.
func (s *Socket) Run(f func(Message)) {
	buffer := make([]byte, messageMost+1)
	for {
		n, err := s.conn.Read(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if fields, ok := parse(buffer[:n]); err == nil && ok {
			f(Message{Fields: fields})
		}
	}
}
