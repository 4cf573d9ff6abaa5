//go:build !linux

package handoff

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

var errNoTrial = fmt.Errorf("this system has no such thing: %w", errors.ErrUnsupported)

// TryHiding returns an error wrapping [errors.ErrUnsupported].
func TryHiding(context.Context) error { return errNoTrial }

// TryFollowing returns an error wrapping [errors.ErrUnsupported].
func TryFollowing(context.Context) error { return errNoTrial }

// TryBarrier returns an error wrapping [errors.ErrUnsupported].
func TryBarrier() error { return errNoTrial }

// TryBacklog is the system's own limit; it can't be read back here.
func TryBacklog() (int, error) { return unix.SOMAXCONN, nil }

// TryLowPort is not tried here.
func TryLowPort() (int, error) { return 0, errNoTrial }

// Sysctls are of Linux alone.
func Sysctls() Sysctl { return Sysctl{Somaxconn: -1, MigrateReq: -1, Syncookies: -1} }
