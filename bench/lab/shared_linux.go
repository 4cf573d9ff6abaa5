package lab

import (
	"context"
	"os"
	"sync"
	"testing"
)

// Shared is a lab for all tests of a package, booted by the first that needs it:
// a variable of the package whose TestMain closes it.
type Shared struct {
	once sync.Once
	lab  *Lab
	err  error
}

// Of is the lab. Where there can be none, the test is skipped, or fails with
// GAPLESS_REQUIRE_ALL.
func (s *Shared) Of(t testing.TB) *Lab {
	t.Helper()
	if err := Missing(); err != nil {
		if os.Getenv("GAPLESS_REQUIRE_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s.once.Do(func() { s.lab, s.err = Boot(context.Background()) })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.lab
}

// Close takes the lab away, if there is one.
func (s *Shared) Close() error {
	if s.lab == nil {
		return nil
	}
	return s.lab.Close()
}
