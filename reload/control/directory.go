package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/reload"
)

// Directory is where the control sockets of a user's services are.
type Directory struct {
	Path string
	// public: everybody may make files beside it, so it must be looked at first.
	public bool
}

// RuntimeDirectory is $GAPLESS_RUNTIME_DIR, else /run/gapless for root where it can be
// written to (containers may have no /run), else $XDG_RUNTIME_DIR/gapless, else
// /tmp/gapless-UID. getenv is [os.Getenv].
func RuntimeDirectory(getenv func(string) string) Directory {
	if dir := getenv("GAPLESS_RUNTIME_DIR"); dir != "" {
		return Directory{Path: dir}
	}
	if os.Geteuid() == 0 && (writable("/run/gapless") || writable("/run")) {
		return Directory{Path: "/run/gapless"}
	}
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return Directory{Path: filepath.Join(dir, "gapless")}
	}
	return Directory{Path: "/tmp/gapless-" + strconv.Itoa(os.Geteuid()), public: true}
}

// writable: root fails only where the file system is read-only, or nothing is there.
func writable(path string) bool { return unix.Access(path, unix.W_OK) == nil }

// Make makes it, with mode 0700, where it is not there yet.
func (d Directory) Make() error {
	make := os.MkdirAll
	if d.public {
		make = mkdir
	}
	if err := make(d.Path, 0o700); err != nil {
		return fmt.Errorf("can't make the directory for control sockets: %w; choose another place with --control PATH", err)
	}
	return d.check()
}

func mkdir(path string, mode fs.FileMode) error {
	if err := os.Mkdir(path, mode); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// check: in a directory that everybody may write to, somebody else may have made it
// first, to answer in our place.
func (d Directory) check() error {
	if !d.public {
		return nil
	}
	info, err := os.Lstat(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("can't look at the directory for control sockets: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if !info.IsDir() || owner != uint32(os.Geteuid()) || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("can't use %s for control sockets: it must be a directory of yours with mode 0700 and no link; remove it, or set GAPLESS_RUNTIME_DIR", d.Path)
	}
	return nil
}

// Socket is the path of a service's control socket.
func (d Directory) Socket(name string) string { return filepath.Join(d.Path, name+Suffix) }

// Running are the names of the services that answer, sorted. A socket that this
// user may not connect to counts: who asks is told when using it.
func (d Directory) Running(ctx context.Context) ([]string, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, failure(CodeNotPermitted, "", fmt.Sprintf("can't look for services in %s: permission denied", d.Path))
	}
	if err != nil {
		return nil, fmt.Errorf("can't look for services: %w", err)
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), Suffix)
		if !ok || e.Type() != fs.ModeSocket {
			continue
		}
		if _, err := answers(ctx, d.Socket(name)); err == nil || errors.Is(err, fs.ErrPermission) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Find is a client for the service of that name or, if name is "", for the only one
// there is.
func (d Directory) Find(ctx context.Context, name string) (*Client, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	if name == "" {
		only, err := d.only(ctx)
		if err != nil {
			return nil, err
		}
		name = only
	}
	if err := CheckName(name); err != nil {
		return nil, err
	}
	return NewClient(name, d.Socket(name)), nil
}

func (d Directory) only(ctx context.Context) (string, error) {
	names, err := d.Running(ctx)
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "", failure(reload.CodeNotRunning, "", fmt.Sprintf("no service is running (looked in %s)", d.Path))
	case len(names) > 1:
		return "", &AmbiguousError{Names: names}
	}
	return names[0], nil
}

// AmbiguousError asks for a name, since several services run.
type AmbiguousError struct{ Names []string }

func (e *AmbiguousError) Error() string {
	return "several services are running, say which: " + strings.Join(e.Names, ", ")
}

// CheckName returns the fault of a service name, or nil: it is a file name.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("bad service name: it is empty")
	case len(name) > 64:
		return fmt.Errorf("bad service name %q: it has %d bytes, at most 64 are allowed", name, len(name))
	case strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-"):
		return fmt.Errorf("bad service name %q: it begins with %q", name, name[:1])
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r >= 0x7f }):
		return fmt.Errorf("bad service name %q: only printable ASCII without space, slash and colon is allowed", name)
	}
	return nil
}
