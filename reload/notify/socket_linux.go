package notify

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Socket receives the messages of one generation.
type Socket struct {
	conn *net.UnixConn
	name string
}

// Listen makes a socket with an abstract address that can't be guessed: there is
// no file that a daemon of another user would have to be able to reach, and none
// to be left behind.
func Listen() (*Socket, error) {
	name := "@gapless/notify/" + rand.Text()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("can't make a notify socket: %w", err)
	}
	s := &Socket{conn: conn, name: name}
	if err := s.passCredentials(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("can't make a notify socket: %w", err)
	}
	return s, nil
}

func (s *Socket) passCredentials() error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	})
	return errors.Join(err, failed)
}

// Address is the value of NOTIFY_SOCKET.
func (s *Socket) Address() string { return s.name }

// Close ends Run.
func (s *Socket) Close() error { return s.conn.Close() }

// Run calls f with each message until the socket is closed.
func (s *Socket) Run(f func(Message)) {
	buffer, oob := make([]byte, messageMost+1), make([]byte, 4096)
	for {
		n, oobn, flags, _, err := s.conn.ReadMsgUnix(buffer, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(time.Millisecond) // whatever it is, it may last
			continue
		}
		m, ok := message(buffer[:n], oob[:oobn])
		if ok && flags&unix.MSG_TRUNC == 0 {
			f(m)
		}
	}
}

// message takes the sender from the control data and closes files that came too.
func message(b, oob []byte) (Message, bool) {
	control, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return Message{}, false
	}
	m, known := Message{}, false
	for _, c := range control {
		if cred, err := unix.ParseUnixCredentials(&c); err == nil {
			m.PID, m.UID, known = int(cred.Pid), cred.Uid, cred.Pid != 0
			continue
		}
		if fds, err := unix.ParseUnixRights(&c); err == nil {
			closeAll(fds)
		}
	}
	fields, ok := parse(b)
	m.Fields = fields
	return m, ok && known
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
