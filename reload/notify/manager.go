package notify

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// sayTime is how long a manager that does not read is waited for.
const sayTime = time.Second

// Manager is the other way round: who started this process and wants to know how it
// is, as systemd does of a unit with Type=notify. It keeps a connection, so that it
// can say that this process lives even when that has no descriptor left. One
// goroutine uses it, and closes it.
type Manager struct {
	address *net.UnixAddr
	conn    *net.UnixConn
}

// FindManager is nil if nobody wants to know. getenv is [os.Getenv].
func FindManager(getenv func(string) string) *Manager {
	name := getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	return &Manager{address: &net.UnixAddr{Name: name, Net: "unixgram"}}
}

// Say sends assignments, as READY=1, in one message. What it waits for the manager is
// a second.
func (m *Manager) Say(assignments ...string) error {
	message := []byte(strings.Join(assignments, "\n"))
	if m.conn != nil {
		if err := m.send(message); err == nil || isTimeout(err) {
			return err
		}
		m.Close() // it may have made its socket anew
	}
	conn, err := net.DialUnix(m.address.Net, nil, m.address)
	if err != nil {
		return fmt.Errorf("can't reach the manager: %w", err)
	}
	m.conn = conn
	return m.send(message)
}

func (m *Manager) send(message []byte) error {
	err := m.conn.SetWriteDeadline(time.Now().Add(sayTime))
	if err == nil {
		_, err = m.conn.Write(message)
	}
	if err != nil {
		return fmt.Errorf("can't tell the manager: %w", err)
	}
	return nil
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// Close gives the connection up; the next Say makes another.
func (m *Manager) Close() {
	if m.conn != nil {
		m.conn.Close()
		m.conn = nil
	}
}
