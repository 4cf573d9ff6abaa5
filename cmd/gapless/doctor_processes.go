package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/gapless-dev/gapless/reload/spawn"
)

// tryOrphans begins to be the parent of orphans, as run does; end ends it.
func tryOrphans() (c check, end func()) {
	reaper, err := spawn.NewReaper()
	end = func() {}
	if err == nil {
		end = reaper.Close
	}
	found := "processes that leave their parent come to gapless"
	if runtime.GOOS != "linux" {
		found = "not on this system: who leaves the daemon's process group gets away"
	}
	c = of("orphans", "PR_SET_CHILD_SUBREAPER, and pidfds of children", found, err,
		check{State: stateMissing, Means: "gapless run does not start: it could not tell a daemon's processes from others", Do: "Linux 5.4, and a profile that allows pidfd_open, pidfd_send_signal and waitid"})
	c.Needed = true
	return c, end
}

// processChecks are of processes and their limits.
func processChecks(ctx context.Context) []check {
	checks := []check{filesCheck(), controlCheck(ctx)}
	if runtime.GOOS != "linux" {
		return checks
	}
	return append([]check{procCheck(), cgroupCheck(), tasksCheck(), memoryCheck()}, checks...)
}

func procCheck() check {
	var err error
	if withoutProc() != "" {
		err = errors.New("it is not mounted")
	}
	return of("/proc", "/proc/self", "mounted", err, check{State: stateMissing,
		Means: "connections are not counted, a daemon that closes its listener or leaves processes behind is not noticed, there is no way back to a replaced binary, and binds can't be told apart",
		Do:    "mount -t proc proc /proc"})
}

func cgroupCheck() check {
	dir, kills, err := spawn.TryCgroup()
	found := "each generation gets one below " + dir
	if !kills {
		found += ", and is killed one by one"
	}
	return of("cgroups", "a cgroup (v2) made and removed below its own", found, err, check{State: stateLimited,
		Means: "processes of a daemon are found by parents, sessions and environment: one that leaves all of these at once may outlive its generation",
		Do:    "Delegate=yes in a systemd unit; in a container a writable cgroup v2 of its own (docker run --cgroupns private, and /sys/fs/cgroup mounted rw)"})
}

const (
	spareFiles = 128
	spareTasks = 64
	spareBytes = 64 << 20
)

func filesCheck() check {
	limit, err := spawn.Descriptors()
	if err == nil {
		err = spawn.TryDescriptors(spareFiles)
	}
	if err != nil && limit > 0 {
		err = fmt.Errorf("%w (RLIMIT_NOFILE is %d)", err, limit)
	}
	return of("open files", fmt.Sprintf("%d more at once", spareFiles), fmt.Sprintf("%d at once", limit), err, check{State: stateLimited,
		Means: "each generation takes about ten descriptors and one for each listener: a reload may be refused",
		Do:    "ulimit -n 1024, LimitNOFILE=, docker run --ulimit nofile=1024"})
}

func tasksCheck() check {
	c := check{Name: "processes", State: stateOK, Tried: "pids.max of its cgroup and those above", Found: "no limit on its cgroup"}
	t, ok := spawn.FindTasks()
	if !ok {
		return c
	}
	c.Found = fmt.Sprintf("%d of %d", t.Used, t.Limit)
	if t.Limit-min(t.Used, t.Limit) < spareTasks {
		c.State, c.Means = stateLimited, "two generations at once have twice as many processes and threads: a reload may fail"
		c.Do = "TasksMax= in a systemd unit, docker run --pids-limit"
	}
	return c
}

func memoryCheck() check {
	c := check{Name: "memory", State: stateOK, Tried: "memory.max of its cgroup and those above", Found: "no limit on its cgroup"}
	m, ok := spawn.FindMemory()
	if !ok {
		return c
	}
	c.Found = fmt.Sprintf("%d MiB of %d are left", m.Room()>>20, m.Limit>>20)
	c.Means = "two generations at once need memory for two"
	if m.Room() < spareBytes {
		c.State, c.Do = stateLimited, "MemoryMax= in a systemd unit, docker run --memory; or --strategy replace"
	}
	return c
}

func controlCheck(ctx context.Context) check {
	dir := runtimeDirectory()
	return of("control socket", "a socket made and removed in "+dir.Path, "in "+dir.Path, dir.Try(ctx), check{State: stateLimited,
		Means: "run goes on without a control socket: HUP reloads, QUIT drains and ends, USR1 logs the state, and there is no gapless status, canary or rollback",
		Do:    "a directory that can be written to: GAPLESS_RUNTIME_DIR, or --control PATH (docker run --tmpfs /run)"})
}
