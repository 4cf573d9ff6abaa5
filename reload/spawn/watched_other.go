//go:build !linux

package spawn

import (
	"context"
	"errors"
	"syscall"
)

// Watched is any process whose end is waited for; on this system there is none.
type Watched struct{}

// Watch returns an error wrapping [errors.ErrUnsupported].
func Watch(int) (*Watched, error) { return nil, errors.ErrUnsupported }

// Wait returns an error wrapping [errors.ErrUnsupported].
func (w *Watched) Wait(context.Context) error { return errors.ErrUnsupported }

// Exit returns an error wrapping [errors.ErrUnsupported].
func (w *Watched) Exit() (Exit, error) { return Exit{}, errors.ErrUnsupported }

// Signal returns an error wrapping [errors.ErrUnsupported].
func (w *Watched) Signal(syscall.Signal) error { return errors.ErrUnsupported }

// Close does nothing.
func (w *Watched) Close() error { return nil }
