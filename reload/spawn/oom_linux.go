package spawn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// oomMost is OOM_SCORE_ADJ_MAX of linux/oom.h.
const oomMost = 1000

// oomRaise is how a process's oom_score_adj (proc_pid_oom_score_adj(5)) was changed; its
// children have inherited that.
type oomRaise struct{ before, raised int }

// raiseOOM comes before the shim has its order. Raising needs no right. Putting it back
// needs none either: without CAP_SYS_RESOURCE the least that is allowed is what somebody
// with it has set last (oom_score_adj_min in the kernel's fs/proc/base.c), so either we
// have it or the least has not changed. Where it can't be done, it is not.
func raiseOOM(pid, by int) *oomRaise {
	before, err := readOOM(pid)
	if err != nil || by <= 0 || before >= oomMost {
		return nil
	}
	r := &oomRaise{before: before, raised: min(before+by, oomMost)}
	if writeFile(oomFile(pid), strconv.Itoa(r.raised)) != nil {
		return nil
	}
	return r
}

func oomFile(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/oom_score_adj" }

func readOOM(pid int) (int, error) {
	b, err := os.ReadFile(oomFile(pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// LowerOOM takes back what RaiseOOM of [Options] did, from every process of the
// generation that still has it. One that has set its own keeps that. The error is of
// one that can't be written: a daemon of another user's, or that is not dumpable, when
// the holder is no root.
func (p *Process) LowerOOM() error {
	found, err := p.find()
	if p.oom == nil {
		return err
	}
	for range killRounds { // a child may just be forked by one that comes later
		lowered, failed := false, error(nil)
		for _, s := range found {
			done, err := p.oom.lower(s)
			lowered, failed = lowered || done, errors.Join(failed, err)
		}
		if err != nil || failed != nil || !lowered {
			return errors.Join(err, failed)
		}
		found, err = p.find()
	}
	return nil
}

func (r *oomRaise) lower(s stat) (bool, error) {
	if now, err := readOOM(s.pid); err != nil || now != r.raised {
		return false, nil
	}
	err := writeFile(oomFile(s.pid), strconv.Itoa(r.before))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || err != nil && !hasMemory(s.pid) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("can't put oom_score_adj of process %d (%s) back: %w", s.pid, s.name, err)
	}
	return true, nil
}

// hasMemory is false for one that has ended, or is about to: its files in /proc are root's
// from the moment on in which it has given its memory back (task_dump_owner in the
// kernel's fs/proc/base.c).
func hasMemory(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	return err == nil && !strings.HasPrefix(string(b), "0 ")
}
