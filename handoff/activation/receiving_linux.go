package activation

import (
	"time"

	"golang.org/x/sys/unix"
)

// receivedWithin asks TCP when the last data came; other sockets don't tell.
func receivedWithin(fd int, d time.Duration) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && time.Duration(info.Last_data_recv)*time.Millisecond < d
}
