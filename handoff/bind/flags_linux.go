package bind

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// flags of the daemon's descriptor are those of open(2), O_CLOEXEC among them, as its
// fdinfo has them (proc_pid_fdinfo(5)).
func (c *Call) flags() (int, error) {
	b, err := os.ReadFile(procFile(c.TID, "fdinfo/"+strconv.Itoa(c.FD)))
	switch {
	case errors.Is(err, fs.ErrPermission):
		return 0, c.noAccess(err)
	case errors.Is(err, fs.ErrNotExist):
		return 0, unix.EBADF
	case err != nil:
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if octal, ok := bytes.CutPrefix(line, []byte("flags:")); ok {
			flags, err := strconv.ParseUint(string(bytes.TrimSpace(octal)), 8, 32)
			return int(flags), err
		}
	}
	return 0, errors.New("its fdinfo has no flags")
}

// stillAt is [ErrMoved] unless the daemon's descriptor is of that socket.
func (c *Call) stillAt(inode uint64) error {
	at, err := os.Readlink(procFile(c.TID, "fd/"+strconv.Itoa(c.FD)))
	switch {
	case errors.Is(err, fs.ErrPermission):
		return c.noAccess(err)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case at != fmt.Sprintf("socket:[%d]", inode):
		return ErrMoved
	}
	return nil
}
