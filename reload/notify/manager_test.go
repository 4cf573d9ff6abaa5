package notify

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// managerAt is told by address.
func managerAt(t *testing.T, address string) *Manager {
	t.Helper()
	m := FindManager(func(name string) string {
		if name != "NOTIFY_SOCKET" {
			t.Errorf("it reads %s", name)
		}
		return address
	})
	if m != nil {
		t.Cleanup(m.Close)
	}
	return m
}

// mailbox is a manager's socket with a path, as systemd's.
func mailbox(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func received(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 4096)
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestNobodyWantsToKnow(t *testing.T) {
	if m := managerAt(t, ""); m != nil {
		t.Errorf("%+v", m)
	}
}

func TestSayIsOneMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c := mailbox(t, path)
	m := managerAt(t, path)
	for range 2 {
		if err := m.Say("READY=1", "STATUS=up"); err != nil {
			t.Fatal(err)
		}
		if got := received(t, c); got != "READY=1\nSTATUS=up" {
			t.Errorf("got %q", got)
		}
	}
}

// The manager may make its socket anew, and is found again.
func TestSayFindsTheManagerAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	m := managerAt(t, path)
	if err := m.Say("READY=1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	for range 2 {
		c := mailbox(t, path)
		if err := m.Say("READY=1"); err != nil {
			t.Fatal(err)
		}
		received(t, c)
		c.Close()
		os.Remove(path)
	}
}

// A manager that does not read is not waited for without end.
func TestSayGivesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c := mailbox(t, path)
	m := managerAt(t, path)
	text := "STATUS=" + strings.Repeat("x", 1000)
	said := 0
	var err error
	for ; err == nil && said < 100000; said++ {
		err = m.Say(text)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("after %d: %v", said, err)
	}
	for range said - 1 {
		received(t, c)
	}
	if err := m.Say("READY=1"); err != nil {
		t.Errorf("when it reads again: %v", err)
	}
	if got := received(t, c); got != "READY=1" {
		t.Errorf("got %.20q", got)
	}
}
