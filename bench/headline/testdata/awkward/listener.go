package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// listener accepts by the system call, so that no error of it is hidden.
type listener struct {
	habits
	at    netip.AddrPort
	fd    int
	epoll int           // -1 for none: accept blocks
	free  chan struct{} // with one-by-one, has one while no client is served
}

func (l *listener) Accept() (net.Conn, error) {
	if l.oneByOne {
		<-l.free
	}
	for {
		if err := l.wait(); err != nil {
			return nil, err
		}
		fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			return l.conn(fd)
		case l.fragile, !passes(err):
			return nil, fmt.Errorf("can't accept: %w", err)
		}
	}
}

// passes: the others of accept(2) are for ever.
func passes(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED)
}

func (l *listener) wait() error {
	if l.epoll < 0 {
		return nil
	}
	events := make([]unix.EpollEvent, 1)
	for {
		n, err := unix.EpollWait(l.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("can't wait: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
}

func (l *listener) conn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close() // the connection has its own
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("can't use a connection: %w", err)
	}
	return &client{Conn: c, gone: func() {
		if l.oneByOne {
			l.free <- struct{}{}
		}
	}}, nil
}

func (l *listener) Close() error   { return unix.Close(l.fd) }
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

// client tells when it is closed.
type client struct {
	net.Conn
	once sync.Once
	gone func()
}

func (c *client) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.gone)
	return err
}
