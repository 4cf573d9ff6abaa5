package bind

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// read makes a Call of a notification. Whoever uses it asks [Call.alive] first.
func (w *Watch) read(n notification) *Call {
	args := n.data.args
	// The kernel takes all three as int.
	c := &Call{watch: w, id: n.id, TID: int(n.pid), FD: int(int32(args[0]))}
	var errAddr error
	switch n.data.nr {
	case unix.SYS_LISTEN:
		c.Op, c.Backlog = Listen, int(int32(args[1]))
	default:
		c.Op = Bind
		errAddr = c.readAddr(uintptr(args[1]), int(int32(args[2])))
	}
	c.Unread = errors.Join(errAddr, c.readPID())
	return c
}

func (c *Call) readPID() error {
	status, err := readStatus(c.TID)
	if err != nil {
		return fmt.Errorf("can't find the process of thread %d: %w", c.TID, err)
	}
	c.PID = status.tgid
	return nil
}

// status is of /proc/TID/status, proc_pid_status(5).
type status struct {
	tgid int
	uid  int // the real one
}

func readStatus(tid int) (status, error) {
	s := status{uid: -1}
	b, err := os.ReadFile(procFile(tid, "status"))
	if err != nil {
		return s, err
	}
	for line := range bytes.Lines(b) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		fields := bytes.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch string(key) {
		case "Tgid":
			s.tgid, err = strconv.Atoi(string(fields[0]))
		case "Uid":
			s.uid, err = strconv.Atoi(string(fields[0]))
		}
		if err != nil {
			return s, err
		}
	}
	if s.tgid == 0 {
		return s, errors.New("its status has no Tgid")
	}
	return s, nil
}

// procFile is by thread: one may have descriptors, and a namespace, of its own.
func procFile(tid int, name string) string { return "/proc/" + strconv.Itoa(tid) + "/" + name }

// readAddr takes the one copy of the address. Lengths that the kernel refuses leave it
// unknown: the kernel will say EINVAL itself.
func (c *Call) readAddr(at uintptr, length int) error {
	if length < familySize || length > storageSize {
		return nil
	}
	b := make([]byte, length)
	if err := c.readMemory(b, at); err != nil {
		return fmt.Errorf("can't read the address of a bind: %w", err)
	}
	c.Family, c.Addr = parseSockaddr(b, zoneName)
	return nil
}

// readMemory of the thread; the file is for where a seccomp profile forbids the call
// (Docker's, without CAP_SYS_PTRACE).
func (c *Call) readMemory(b []byte, at uintptr) error {
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(c.TID, local, []unix.RemoteIovec{{Base: at, Len: len(b)}}, 0)
	switch {
	case err == nil && n == len(b):
		return nil
	case err == nil || errors.Is(err, unix.EFAULT):
		return unix.EFAULT
	case errors.Is(err, unix.ESRCH):
		return err // it is not alive, and asked for that next
	}
	return c.readMemoryFile(b, at)
}

func (c *Call) readMemoryFile(b []byte, at uintptr) error {
	f, err := os.Open(procFile(c.TID, "mem"))
	if errors.Is(err, fs.ErrPermission) {
		return c.noAccess(err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(b, int64(at))
	if err != nil {
		return unix.EFAULT // EIO, or a page that ends in it
	}
	return nil
}
