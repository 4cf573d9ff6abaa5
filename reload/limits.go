package reload

import (
	"errors"
	"syscall"
)

// because is an error as people are told of it: with what they can do, where it is a
// limit of the system's that was reached.
func because(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return err.Error() + "; the holder may not have more: raise its limit (ulimit -n, LimitNOFILE=)"
	case errors.Is(err, syscall.ENFILE):
		return err.Error() + "; the machine may not have more: raise its limit (sysctl fs.file-max)"
	case errors.Is(err, syscall.EAGAIN):
		return err.Error() + "; no more processes are allowed: raise the limit of the user (ulimit -u, LimitNPROC=) or of the cgroup (pids.max, TasksMax=)"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return err.Error() + "; make room there"
	}
	return err.Error()
}
