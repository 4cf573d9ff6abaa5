//go:build !linux

package conns

import (
	"context"
	"errors"
	"fmt"
)

var errUnsupported = fmt.Errorf("can't list connections on this system: %w", errors.ErrUnsupported)

// Diag asks the kernel about sockets; on this system none can be had.
type Diag struct{}

// Open returns an error wrapping [errors.ErrUnsupported].
func Open() (*Diag, error) { return nil, errUnsupported }

// Close does nothing.
func (d *Diag) Close() error { return nil }

// Dump returns an error wrapping [errors.ErrUnsupported].
func (d *Diag) Dump(context.Context, Query) ([]Conn, error) { return nil, errUnsupported }

// Lookup returns an error wrapping [errors.ErrUnsupported].
func (d *Diag) Lookup(context.Context, Conn) (Conn, bool, error) {
	return Conn{}, false, errUnsupported
}

// Count returns an error wrapping [errors.ErrUnsupported].
func (d *Diag) Count(context.Context, Question) (Count, error) { return Count{}, errUnsupported }

// Sockets returns an error wrapping [errors.ErrUnsupported].
func Sockets(int) (map[uint64]bool, error) { return nil, errUnsupported }

// Descriptors returns an error wrapping [errors.ErrUnsupported].
func Descriptors(int, uint64) (int, error) { return 0, errUnsupported }

// Group returns an error wrapping [errors.ErrUnsupported].
func Group(int) ([]int, error) { return nil, errUnsupported }

// Owners returns an error wrapping [errors.ErrUnsupported].
func Owners(context.Context, ...uint64) (map[uint64]Owner, error) { return nil, errUnsupported }
