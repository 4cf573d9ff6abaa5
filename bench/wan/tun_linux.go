package wan

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	deviceName = "wan0"
	// deviceQueue packets wait in the device while the relay is off the CPU. The default of 500 is 25 ms at the
	// rate that this is built for; what does not fit is lost by the kernel.
	deviceQueue = 10_000
)

// openTUN makes the device in the namespace of the calling thread. The device lives until the file is closed; reads and
// writes of the file may come from any thread.
func openTUN() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("can't open /dev/net/tun, it needs the kernel's tun module: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("can't open /dev/net/tun: %w", err)
	}
	if err := makeTUN(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("can't make TUN device %s: %w", deviceName, err)
	}
	// Only now: the poller would find a file without a device in an error state, and never wake a reader.
	return os.NewFile(uintptr(fd), deviceName), nil
}

func makeTUN(fd int) error {
	request, err := unix.NewIfreq(deviceName)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
}
