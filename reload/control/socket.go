package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
)

// Suffix of control sockets in the runtime directory.
const Suffix = ".sock"

// pathMost is the longest path that a unix socket can have (unix(7)), less its NUL.
const pathMost = 107

// dialTime bounds a connect to a socket that may be dead: the kernel answers at
// once, unless the backlog of one that is alive is full.
const dialTime = time.Second

// RunningError says that somebody answers at a control socket already.
type RunningError struct {
	Path string
	PID  int // 0 if it can't be told
}

func (e *RunningError) Error() string {
	if e.PID == 0 {
		return "already running; choose another name with --name"
	}
	return fmt.Sprintf("already running as pid %d; end it with gapless shutdown, or choose another name with --name", e.PID)
}

// Socket is a control socket of ours: the listener and its file.
type Socket struct {
	listener *net.UnixListener
	path     string
	file     fs.FileInfo // as it was made, to know it again
	remove   func() error
}

// Listen makes the socket file at path, with mode 0600 from the start. A file at
// which nobody answers is replaced; where somebody does the error is a
// [*RunningError]. The caller gives the Socket to [Serve], or calls Remove.
func Listen(ctx context.Context, path string) (*Socket, error) {
	s, err := listen(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("can't open the control socket %s: %w", path, err)
	}
	return s, nil
}

func listen(ctx context.Context, path string) (*Socket, error) {
	beside := filepath.Join(filepath.Dir(path), ".g"+strconv.Itoa(os.Getpid()))
	if n := max(len(path), len(beside)); n > pathMost {
		return nil, fmt.Errorf("the path has %d bytes, at most %d are possible; choose a shorter one with --control", n, pathMost)
	}
	unlock, err := lock(ctx, path)
	if err != nil {
		return nil, explain(err)
	}
	defer unlock()
	if err := checkFree(ctx, path); err != nil {
		return nil, err
	}
	// Bound beside and renamed, so that nobody ever meets one that does not answer.
	ln, err := bind(ctx, beside)
	if err != nil {
		return nil, explain(err)
	}
	s := &Socket{listener: ln, path: path}
	s.remove = sync.OnceValue(s.unlink)
	if s.file, err = os.Lstat(beside); err == nil {
		err = os.Rename(beside, path)
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close(), os.Remove(beside))
	}
	return s, nil
}

// bind: the mode that a socket has before bind(2) is that of its file on Linux,
// whatever the umask; elsewhere it is set right after.
func bind(ctx context.Context, at string) (*net.UnixListener, error) {
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), 0o600) })
	}}
	l, err := config.Listen(ctx, "unix", at)
	if err != nil {
		return nil, err
	}
	ln := l.(*net.UnixListener)
	ln.SetUnlinkOnClose(false) // its name changes, and the file may be another's by then
	if err := os.Chmod(at, 0o600); err != nil {
		return nil, errors.Join(err, ln.Close(), os.Remove(at))
	}
	return ln, nil
}

func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return fmt.Errorf("the directory can't be written to: %w; choose another place with --control PATH", err)
	case isFull(err):
		return fmt.Errorf("%w; make room there, or choose another place with --control PATH", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no such directory: %w", err)
	}
	return err
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// checkFree returns nil if path may be taken.
func checkFree(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("something that is not a socket is there; remove it, or choose another path with --control")
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != uint32(os.Geteuid()) {
		return fmt.Errorf("it belongs to uid %d; choose another path with --control", owner)
	}
	pid, err := answers(ctx, path)
	switch {
	case isStale(err):
		return nil
	case err != nil:
		return err
	}
	return &RunningError{Path: path, PID: pid}
}

// isStale: the file is there, and no process listens at it.
func isStale(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// answers tells who listens at path: the process that called listen(2).
func answers(ctx context.Context, path string) (int, error) {
	dialer := net.Dialer{Timeout: dialTime}
	c, err := dialer.DialContext(ctx, "unix", path)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil // it listens, and has no time
	}
	if err != nil {
		return 0, err
	}
	defer c.Close()
	peer, err := handoff.Peer(c.(*net.UnixConn))
	if err != nil {
		return 0, nil
	}
	return peer.PID, nil
}

// Path of the file.
func (s *Socket) Path() string { return s.path }

// Remove closes the socket, and unlinks its file if it is still the same one. It
// may be called more than once, by anybody.
func (s *Socket) Remove() error { return s.remove() }

// unlink closes first, for the lock needs a descriptor too, and there may be no other.
// On a full disk there can't be a lock, and for that very reason nobody is replacing
// the file.
func (s *Socket) unlink() error {
	s.listener.Close() // the server may have closed it already
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	unlock, err := lock(ctx, s.path)
	if err == nil {
		defer unlock()
	}
	if err == nil || isFull(err) {
		err = nil
		if now, statErr := os.Lstat(s.path); statErr == nil && os.SameFile(now, s.file) {
			err = os.Remove(s.path)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the directory is gone, and the file with it
	}
	if err != nil {
		return fmt.Errorf("can't remove the control socket %s: %w", s.path, err)
	}
	return nil
}

func lockPath(path string) string { return strings.TrimSuffix(path, Suffix) + ".lock" }
