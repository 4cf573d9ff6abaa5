package control

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockTime is more than replacing a file takes; who holds it longer is stuck.
const lockTime = 5 * time.Second

// lock keeps two holders from replacing the same socket at once. The file is
// removed under the lock, so whoever gets it must look whether it still is the one
// that is there.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	name := lockPath(path)
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		taken, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("can't lock %s: %w", name, err)
		}
		if taken {
			return func() {
				os.Remove(name)
				f.Close()
			}, nil
		}
		f.Close()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("can't lock %s: another process has held it for long: %w", name, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func tryLock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK || err == unix.EINTR {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	ours, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(f.Name())
	return err == nil && os.SameFile(ours, there), nil
}
