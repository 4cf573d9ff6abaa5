//go:build !linux

package bind

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

var errUnsupported = fmt.Errorf("can't watch for binds on this system: %w", errors.ErrUnsupported)

func unavailable() error {
	return &UnavailableError{Reason: "only Linux has seccomp notification", Err: errors.ErrUnsupported}
}

// Install returns an [*UnavailableError] wrapping [errors.ErrUnsupported].
func Install() (notify int, noNewPrivs bool, err error) { return -1, false, unavailable() }

// Probe returns an [*UnavailableError] wrapping [errors.ErrUnsupported].
func Probe() error { return unavailable() }

// Watch receives calls; on this system none can be had.
type Watch struct{}

// NewWatch closes the descriptor and returns an error wrapping [errors.ErrUnsupported].
func NewWatch(notify int) (*Watch, error) {
	unix.Close(notify)
	return nil, errUnsupported
}

// Next returns an error wrapping [errors.ErrUnsupported].
func (w *Watch) Next(context.Context) (*Call, error) { return nil, errUnsupported }

// Close does nothing.
func (w *Watch) Close() error { return nil }

// Continue returns an error wrapping [errors.ErrUnsupported].
func (c *Call) Continue() error { return errUnsupported }

// Answer returns an error wrapping [errors.ErrUnsupported].
func (c *Call) Answer(unix.Errno) error { return errUnsupported }

// Socket returns an error wrapping [errors.ErrUnsupported].
func (c *Call) Socket() (*Socket, error) { return nil, errUnsupported }

// Replace returns an error wrapping [errors.ErrUnsupported].
func (c *Call) Replace(int, *Socket) error { return errUnsupported }

// SameNetns returns an error wrapping [errors.ErrUnsupported].
func (c *Call) SameNetns(*Socket) (bool, error) { return false, errUnsupported }

// Close does nothing.
func (s *Socket) Close() error { return nil }

// Addr returns an error wrapping [errors.ErrUnsupported].
func (s *Socket) Addr() (netip.AddrPort, error) { return netip.AddrPort{}, errUnsupported }

// IsTCP is false.
func (s *Socket) IsTCP() bool { return false }

// IsMPTCP is false.
func (s *Socket) IsMPTCP() bool { return false }

// Bind returns ENOSYS.
func (s *Socket) Bind(netip.AddrPort) unix.Errno { return unix.ENOSYS }

// Plain returns an error wrapping [errors.ErrUnsupported].
func (s *Socket) Plain() (int, error) { return -1, errUnsupported }

// CarryOptions returns an error wrapping [errors.ErrUnsupported].
func CarryOptions(from, to int) error { return errUnsupported }

// InEpoll returns an error wrapping [errors.ErrUnsupported].
func InEpoll(pid int, inode uint64, fd int) (bool, error) { return false, errUnsupported }

// IsTCP returns an error wrapping [errors.ErrUnsupported].
func (c *Call) IsTCP() (bool, error) { return false, errUnsupported }

// Inode returns an error wrapping [errors.ErrUnsupported].
func (c *Call) Inode() (uint64, error) { return 0, errUnsupported }

// TrialDaemon fails.
func TrialDaemon() int { return 1 }

// Try returns an error wrapping [errors.ErrUnsupported].
func Try(context.Context, *Watch) (Access, error) { return Access{}, errUnsupported }

// Filtered is 0.
func Filtered() int { return 0 }

// NoNewPrivs is false.
func NoNewPrivs() bool { return false }

// Yama is 0.
func Yama() int { return 0 }

// BindsUnseen is false.
func BindsUnseen() bool { return false }
