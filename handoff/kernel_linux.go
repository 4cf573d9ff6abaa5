package handoff

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// kernel is what a group asks of it; a model of it stands in when a test wants to
// see every moment between two calls.
type kernel interface {
	bind(*Endpoint) (fd int, err error)
	listen(fd, backlog int) error
	listening(fd int) (bool, error)
	attach(fd int, in indices) error
	hide(fd int) error
	show(fd, device int) error // after hide
	shutdown(fd int)
	// Of a socket that was inherited, see adopt.
	admit(fd int) error
	deafen(fd int) error
	restore(*Inherited) error
}

type linux struct{}

func (linux) bind(ep *Endpoint) (int, error)  { return bindSocket(ep) }
func (linux) listen(fd, backlog int) error    { return listen(fd, backlog) }
func (linux) listening(fd int) (bool, error)  { return isListening(fd) }
func (linux) attach(fd int, in indices) error { return attach(fd, program(in)) }
func (linux) shutdown(fd int)                 { shutdown(fd) }

func (linux) hide(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, noSuchDevice)
}

func (linux) show(fd, device int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, device); err != nil {
		return fmt.Errorf("can't bind a socket to its device again: %w", err)
	}
	return nil
}

const noSuchDevice = math.MaxInt32

// attach puts a program in force for the whole group of fd, which must be bound
// alone or listening (socket(7), SO_ATTACH_REUSEPORT_CBPF).
func attach(fd int, p []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &prog); err != nil {
		return fmt.Errorf("can't attach a steering program: %w", err)
	}
	return nil
}
