package handoff

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/conns"
)

// TryHiding finds out whether a listener that is about to leave can be made to get
// nothing: clients of one that is hidden must be refused.
func TryHiding(ctx context.Context) error {
	if err := tryHiding(ctx); err != nil {
		return fmt.Errorf("can't hide a listener: %w", err)
	}
	return nil
}

func tryHiding(ctx context.Context) error {
	fd, at, err := trialListener(1)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := (linux{}).hide(fd); err != nil {
		return err
	}
	var d net.Dialer
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, "tcp", at.String())
	if err == nil {
		c.Close()
		return errors.New("it is hidden, and a connection came to it all the same")
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return nil
}

// TryFollowing finds out whether this process sees the connections of a port (sock_diag(7),
// asked for a listener of its own).
func TryFollowing(ctx context.Context) error {
	if err := tryFollowing(ctx); err != nil {
		return fmt.Errorf("can't follow connections: %w", err)
	}
	return nil
}

func tryFollowing(ctx context.Context) error {
	fd, at, err := trialListener(1)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	inode, err := inodeOf(fd)
	if err != nil {
		return err
	}
	diag, err := conns.Open()
	if err != nil {
		return err
	}
	defer diag.Close()
	all, err := diag.Dump(ctx, conns.Query{Families: []int{unix.AF_INET}, States: conns.Set(conns.Listen), Ports: []uint16{at.Port()}, Info: true})
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.Inode == inode {
			return nil
		}
	}
	return errors.New("a listener of its own is not in the kernel's list")
}

// TryBarrier finds out whether the kernel says when no packet is handled under an old
// program any more (membarrier(2)).
func TryBarrier() error {
	const query, global = 0, 1
	can, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, query, 0, 0)
	if errno == 0 && can&global == 0 {
		errno = unix.EINVAL
	}
	if errno == 0 {
		_, _, errno = unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
	}
	if errno != 0 {
		return fmt.Errorf("can't wait for packets in hand: membarrier: %w", errno)
	}
	return nil
}

// TryBacklog is how many connections a listener can have wait: asked for as many as
// gapless asks for, and what the kernel has made of it.
func TryBacklog() (most int, err error) {
	fd, _, err := trialListener(backlog(Spec{}))
	if err != nil {
		return 0, fmt.Errorf("can't try a listener's queue: %w", err)
	}
	defer unix.Close(fd)
	_, most, err = queue(fd)
	return most, err
}

// lowPorts are how many are tried: one may be somebody's.
const lowPorts = 16

// TryLowPort binds a port that takes a privilege (ip_unprivileged_port_start of ip(7)), on
// loopback and without listening. The port is 0 if none takes one.
func TryLowPort() (port int, err error) {
	start := 1024
	if n, ok := sysctl("net/ipv4/ip_unprivileged_port_start"); ok {
		start = n
	}
	for port = start - 1; port > max(0, start-1-lowPorts); port-- {
		if err = tryPort(port); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return port, fmt.Errorf("can't bind port %d: %w", port, err)
	}
	return max(port, 0), nil
}

func tryPort(port int) error {
	fd, err := tcpSocket(unix.AF_INET)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
}

// trialListener is the caller's to close.
func trialListener(backlog int) (int, netip.AddrPort, error) {
	fd, err := tcpSocket(unix.AF_INET)
	if err != nil {
		return -1, netip.AddrPort{}, err
	}
	at := netip.AddrPort{}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err == nil {
		at, err = boundTo(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, at, err
	}
	return fd, at, nil
}

// Sysctls are those of this network namespace that change what a hand-over costs
// (Documentation/networking/ip-sysctl.rst); -1 is one that can't be read.
func Sysctls() (s Sysctl) {
	s.Somaxconn, s.MigrateReq, s.Syncookies = -1, -1, -1
	for name, at := range map[string]*int{"net/core/somaxconn": &s.Somaxconn, "net/ipv4/tcp_migrate_req": &s.MigrateReq, "net/ipv4/tcp_syncookies": &s.Syncookies} {
		if n, ok := sysctl(name); ok {
			*at = n
		}
	}
	return s
}

func sysctl(name string) (int, bool) {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return n, err == nil && n >= 0 && n <= math.MaxInt32
}
