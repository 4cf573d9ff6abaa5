package bind

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// noAccess gives the kernel's refusal its likely reason.
func (c *Call) noAccess(err error) error { return noAccess(c.TID, err) }

func noAccess(tid int, err error) error {
	r := refusal{errno: err, scope: yamaScope(), ours: os.Geteuid(), theirs: -1, getfd: getfdAllowed()}
	if s, err := readStatus(tid); err == nil {
		r.theirs = s.uid
	}
	return fmt.Errorf("%w: %w: %s", ErrNoAccess, err, r.reason())
}

// refused tells the errors of a missing right from all others.
func refused(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS)
}

// refusal is what is known when the kernel says no (ptrace(2), "Ptrace access mode
// checking" and /proc/sys/kernel/yama/ptrace_scope).
type refusal struct {
	errno        error
	scope        int // Yama's, 0 without it
	ours, theirs int // uids; -1 if not known
	getfd        error
}

func (r refusal) reason() string {
	switch {
	case errors.Is(r.errno, unix.ENOSYS):
		return "this kernel, or a seccomp profile, has no pidfd_getfd(2), which came with Linux 5.6"
	case r.theirs >= 0 && r.ours >= 0 && r.theirs != r.ours:
		return fmt.Sprintf("it runs as uid %d and this process as uid %d, without CAP_SYS_PTRACE (in a container: --cap-add SYS_PTRACE)", r.theirs, r.ours)
	case r.scope >= 3:
		return "kernel.yama.ptrace_scope is 3, which forbids it to everybody"
	case r.scope == 2:
		return "kernel.yama.ptrace_scope is 2, and this process is without CAP_SYS_PTRACE"
	case refused(r.getfd):
		return "a seccomp profile forbids pidfd_getfd(2), as Docker's does without --cap-add SYS_PTRACE"
	case r.scope == 1:
		return "kernel.yama.ptrace_scope is 1, and the process is no descendant of this one"
	}
	return "it does not let itself be looked into (prctl PR_SET_DUMPABLE), its binary can't be read by this user, or it has capabilities that this process has not; CAP_SYS_PTRACE would do"
}

func yamaScope() int {
	b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return 0
	}
	scope, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return scope
}

// getfdAllowed asks for a descriptor of this process itself, which only a seccomp
// profile forbids.
func getfdAllowed() error {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, pidfd, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
