package bind

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// IsTCP tells what the socket is where [Call.Socket] has no access to it: by the name
// that the socket file system gives its protocol (xattr system.sockprotoname,
// sockfs_xattr_get in net/socket.c). MPTCP counts as TCP. Reading it takes less of a
// right than having the socket; where that is missing too, the error wraps [ErrNoAccess].
func (c *Call) IsTCP() (bool, error) {
	name := make([]byte, 32)
	n, err := unix.Getxattr(c.link(), "system.sockprotoname", name)
	if gone := c.alive(); gone != nil {
		return false, gone
	}
	if err != nil {
		return false, c.noAccess(fmt.Errorf("can't read the protocol of a daemon's socket: %w", err))
	}
	protocol := strings.TrimRight(string(name[:n]), "\x00")
	return protocol == "TCP" || protocol == "TCPv6" || protocol == "MPTCP" || protocol == "MPTCPv6", nil
}

// Inode is that of the socket, where [Call.Socket] has no access to it.
func (c *Call) Inode() (uint64, error) {
	text, err := os.Readlink(c.link())
	if gone := c.alive(); gone != nil {
		return 0, gone
	}
	if err != nil {
		return 0, c.noAccess(fmt.Errorf("can't read what a daemon's socket is: %w", err))
	}
	number, ok := strings.CutPrefix(strings.TrimSuffix(text, "]"), "socket:[")
	if !ok {
		return 0, fmt.Errorf("can't read what a daemon's socket is: %s is none", text)
	}
	return strconv.ParseUint(number, 10, 64)
}

func (c *Call) link() string { return fmt.Sprintf("/proc/%d/fd/%d", c.TID, c.FD) }
