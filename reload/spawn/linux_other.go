//go:build !linux

package spawn

import (
	"os"
	"syscall"
)

// Reaper is of Linux alone.
type Reaper struct{}

// NewReaper does nothing here: orphans go to pid 1.
func NewReaper() (*Reaper, error) { return &Reaper{}, nil }

// Close ends nothing.
func (r *Reaper) Close() {}

// Cgroups are of Linux alone.
type Cgroups struct{}

// FindCgroups finds none.
func FindCgroups() *Cgroups { return nil }

type cgroup struct{}

func (c *Cgroups) make(string) (*cgroup, error) { return nil, nil }
func (c *cgroup) enter(int) error               { return nil }
func (c *cgroup) remove()                       {}

func (c *cgroup) attr(*syscall.SysProcAttr) (*os.File, error) { return nil, nil }

// FindMemory finds no limit.
func FindMemory() (Memory, bool) { return Memory{}, false }

// Resident is not known.
func Resident([]int) uint64 { return 0 }
