package speed

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime that a process has used so far: its clock is the complement of its pid, and
// CPUCLOCK_SCHED of linux/posix-timers.h (clock_getcpuclockid(3)).
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	const sched = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
