package activation

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Inherited holds the listeners that this process was started with and that
// nobody has taken yet. It is not safe for concurrent use: taking listeners is
// the business of main.
//
// A daemon with several listeners:
//
//	in, err := activation.Inherit()
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer in.Close()
//	web, err := in.Listen("http", "tcp", ":80")
//	...
//	admin, err := in.Listen("admin", "tcp", "127.0.0.1:81")
type Inherited struct {
	listeners []inherited
}

type inherited struct {
	name string
	net.Listener
}

// Inherit takes over the listeners that LISTEN_FDS announces, and removes
// LISTEN_FDS, LISTEN_PID, LISTEN_PIDFDID and LISTEN_FDNAMES from the
// environment, whatever comes of it: a second call finds nothing. Call it once,
// early in main, before files are opened or other programs started.
//
// No variables, or variables meant for another process, are not an error: the
// result is then empty. It is an error when they are malformed, when the number
// of names is not that of the files, or when a file is not a listening stream
// socket; the listeners that came are closed then.
//
// Every file is CLOEXEC afterwards. The sockets are set to O_NONBLOCK, which
// others who hold the same socket see.
func Inherit() (*Inherited, error) {
	n, names, err := processEnvironment().files()
	if err = errors.Join(err, clearEnvironment()); err == nil {
		err = checkListeners(n, names)
	}
	if err != nil {
		closeListeners(n)
		return nil, fmt.Errorf("can't inherit listeners: %w", err)
	}
	in := &Inherited{}
	for i := range n {
		if err := in.add(firstFD+i, nameOf(names, i)); err != nil {
			return nil, errors.Join(fmt.Errorf("can't inherit listeners: %w", err), in.Close())
		}
	}
	return in, nil
}

// checkListeners marks every file CLOEXEC, so that none of them leaks even if
// another one is bad, and returns what is wrong with the first bad one.
func checkListeners(n int, names []string) error {
	var first error
	for fd := firstFD; fd < firstFD+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			// The count lies. There may be two thousand million more.
			return errors.Join(first, fmt.Errorf("fd %d (%s): %w", fd, nameOf(names, fd-firstFD), err))
		}
		if err := checkListener(fd); err != nil && first == nil {
			first = fmt.Errorf("fd %d (%s): %w", fd, nameOf(names, fd-firstFD), err)
		}
	}
	return first
}

func checkListener(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("not a socket")
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return err
	}
	if listening == 0 {
		return errors.New("not a listening socket")
	}
	return nil
}

// closeListeners gives up what was inherited with an error. A listener that
// stays open with nobody to accept from it is a place where clients wait for
// ever; anything else may not be ours to close.
func closeListeners(n int) {
	for fd := firstFD; fd < firstFD+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return
		}
		if checkListener(fd) == nil {
			_ = unix.Close(fd)
		}
	}
}

// add makes a listener of fd, which is closed: net works on a duplicate.
func (in *Inherited) add(fd int, name string) error {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("fd %d (%s): %w", fd, name, err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the path is the manager's
	}
	in.listeners = append(in.listeners, inherited{name, ln})
	return nil
}

// Names returns the names of the listeners that are still to be taken, in the
// order in which they were passed. A manager that gives no names leaves
// "unknown"; systemd's own default is the name of the socket unit. A name may
// occur more than once.
func (in *Inherited) Names() []string {
	names := make([]string, len(in.listeners))
	for i, l := range in.listeners {
		names[i] = l.name
	}
	return names
}

// Listener takes the first listener called name; the caller closes it. It
// reports false when there is none, or none any more: with several of one name,
// call it until then.
func (in *Inherited) Listener(name string) (net.Listener, bool) {
	for i, l := range in.listeners {
		if l.name == name {
			in.listeners = append(in.listeners[:i:i], in.listeners[i+1:]...)
			return l.Listener, true
		}
	}
	return nil, false
}

// Listeners takes all that are left, in the order in which they were passed;
// the caller closes them.
func (in *Inherited) Listeners() []net.Listener {
	all := make([]net.Listener, len(in.listeners))
	for i, l := range in.listeners {
		all[i] = l.Listener
	}
	in.listeners = nil
	return all
}

// Listen takes the first listener called name, or listens on address when there
// is none; the caller closes it.
func (in *Inherited) Listen(name, network, address string) (net.Listener, error) {
	if ln, ok := in.Listener(name); ok {
		return ln, nil
	}
	ln, err := listen(network, address)
	if err != nil && len(in.listeners) > 0 {
		// The likely reason: it was passed, under another name.
		err = fmt.Errorf("%w (no inherited listener is called %q; there are: %s)", err, name, strings.Join(in.Names(), ", "))
	}
	return ln, err
}

// Close closes the listeners that nobody has taken: clients would wait in them
// for ever.
func (in *Inherited) Close() error {
	var errs []error
	for _, ln := range in.Listeners() {
		errs = append(errs, ln.Close())
	}
	return errors.Join(errs...)
}
