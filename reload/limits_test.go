package reload

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// ENFILE and EMFILE come the same way and are told apart in words only; the limit of
// the machine is not a test's to reach.
func TestReasonsSayWhatToDo(t *testing.T) {
	for err, want := range map[error]string{
		syscall.EMFILE:    "can't: too many open files; the holder may not have more: raise its limit (ulimit -n",
		syscall.ENFILE:    "can't: too many open files in system; the machine may not have more: raise its limit (sysctl fs.file-max",
		syscall.EAGAIN:    "can't: resource temporarily unavailable; no more processes are allowed: raise",
		syscall.ENOSPC:    "can't: no space left on device; make room there",
		syscall.EDQUOT:    "can't: disk quota exceeded; make room there",
		errors.New("own"): "can't: own",
	} {
		if got := because(fmt.Errorf("can't: %w", &os.SyscallError{Syscall: "x", Err: err})); !strings.HasPrefix(got, strings.Replace(want, "can't: ", "can't: x: ", 1)) {
			t.Errorf("%v: %q", err, got)
		}
	}
}
