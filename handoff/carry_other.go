//go:build !linux

package handoff

import (
	"errors"
	"fmt"
)

// CarryOptions returns an error wrapping [errors.ErrUnsupported].
func CarryOptions(from, to int) error {
	return fmt.Errorf("can't carry socket options over: %w", errors.ErrUnsupported)
}
