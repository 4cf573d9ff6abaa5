//go:build !linux

package handoff

import (
	"errors"
	"fmt"
)

type traits struct {
	v6only  bool
	device  int
	options Options
}

func (in *Inherited) inspect() error {
	return fmt.Errorf("sockets of another process are taken over on Linux only: %w", errors.ErrUnsupported)
}

func (in *Inherited) prepare(int) []error { return nil }
