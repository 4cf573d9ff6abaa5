package reload

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/conns"
)

// missingSockets are the places in inodes that no process of the generation has open.
func missingSockets(proc process, inodes []uint64) ([]int, error) {
	if _, err := os.Stat("/proc/self"); err != nil {
		return nil, err // then nothing can be seen at all
	}
	// The main process has them nearly always, and finding the others means a look at
	// every process of the machine.
	if missing, err := missingIn([]int{proc.PID()}, inodes); err == nil && len(missing) == 0 {
		return nil, nil
	}
	members, err := proc.Members()
	if err != nil {
		return nil, err
	}
	return missingIn(members, inodes)
}

func missingIn(members []int, inodes []uint64) ([]int, error) {
	open := map[uint64]bool{}
	for _, pid := range members {
		sockets, err := conns.Sockets(pid)
		if err != nil && !hasGone(err) {
			return nil, err
		}
		for inode := range sockets {
			open[inode] = true
		}
	}
	var missing []int
	for i, inode := range inodes {
		if !open[inode] {
			missing = append(missing, i)
		}
	}
	return missing, nil
}

// heldOnce: no process has more than one descriptor of the socket. Where they can't be read
// it is false.
func heldOnce(proc process, inode uint64) bool {
	members, err := proc.Members()
	if err != nil {
		return false
	}
	return !slices.ContainsFunc(members, func(pid int) bool {
		n, err := conns.Descriptors(pid, inode)
		return n > 1 || err != nil && !hasGone(err)
	})
}

func hasGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// startTime is field 22 of /proc/PID/stat, in clock ticks since boot; 0 if it can't
// be read. The name before it is in parentheses and may hold any byte.
func startTime(pid int) uint64 {
	fields := statFields(pid)
	if len(fields) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(string(fields[19]), 10, 64)
	return n
}

// statFields are those of /proc/PID/stat from the third, the state, on.
func statFields(pid int) [][]byte {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	return bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
}

// descends tells whether pid is ancestor or one of its descendants.
func descends(pid, ancestor int) bool {
	for range 64 {
		if group, err := unix.Getpgid(pid); pid == ancestor || err == nil && group == ancestor {
			return true
		}
		fields := statFields(pid)
		if pid <= 1 || len(fields) < 2 {
			return false
		}
		parent, err := strconv.Atoi(string(fields[1]))
		if err != nil {
			return false
		}
		pid = parent
	}
	return false
}

// belongs tells whether a message's sender is of the generation. The pid is the kernel's
// word. That it descends from the main process is nearly always so, and quickly seen.
func (s *Service) belongs(g *generation, pid int) bool {
	if descends(pid, g.proc.PID()) {
		return true
	}
	if members, err := g.proc.Members(); err == nil && slices.Contains(members, pid) {
		return true
	}
	s.emit(event{kind: "notify.ignored", level: levelWarn, generation: g.number, fields: map[string]any{"pid": pid},
		text: s.cfg.Name + ": a notification of pid " + strconv.Itoa(pid) + ", which is not of the generation, is ignored"})
	return false
}
