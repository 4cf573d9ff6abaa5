package spawn

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"os"

	"github.com/gapless-dev/gapless/handoff"
	"golang.org/x/sys/unix"
)

// markName is of the variable by which an orphan is known: descendants inherit it, and
// it is another one at each start.
const markName = "GAPLESS_RUN"

// startTimeout bounds what lies between fork and the daemon's exec: a file system
// that hangs must not hang the service.
const startTimeout = 20 * time.Second

// Start runs the daemon and returns once it has been exec'd. An [*ExecError] says
// that the command could not be run. It may be called by any goroutine.
func Start(ctx context.Context, o Options) (*Process, error) {
	ctx, cancel := WithPatience(ctx, startTimeout, fmt.Errorf("it was given %s", startTimeout))
	defer cancel()
	conn, child, err := handoff.Pair()
	if err != nil {
		return nil, fmt.Errorf("can't start %s: %w", o.Argv[0], err)
	}
	defer conn.Close()
	o.mark = markName + "=" + rand.Text()
	o.Env = append(slices.Clone(o.Env), o.mark)
	p, err := fork(o, child)
	child.Close()
	if err != nil {
		return nil, err
	}
	h, err := instruct(ctx, conn, o)
	if err != nil {
		p.Kill()
		<-p.Gone()
		return nil, err
	}
	p.program, p.bound = h.program, h.bound
	return p, nil
}

// Check finds out whether the daemon could be run, as far as that shows without running
// it: its user, its directory, its command. The error is that of [Start]; the
// listeners are not passed. It may be called by any goroutine.
func Check(ctx context.Context, o Options) error {
	o.Check, o.Bind, o.Listeners, o.Program = true, false, nil, nil
	p, err := Start(ctx, o)
	if err != nil {
		return err
	}
	p.Program().close()
	<-p.Gone() // the shim ends by itself right after it has answered
	return nil
}

// fork starts the shim, in a cgroup of its own where that can be.
func fork(o Options, child *os.File) (*Process, error) {
	c := o.cgroup()
	cmd, pidfd, err := forkInto(c, o, child)
	if err != nil && c != nil {
		// Perhaps only clone3(2) is refused; the shim has no children before it has its order.
		if cmd, pidfd, err = forkInto(nil, o, child); err != nil || c.enter(cmd.Process.Pid) != nil {
			c.remove()
			c = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("can't start %s: %w", o.Argv[0], err)
	}
	p, err := follow(cmd.Process.Pid, pidfd, o, c)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		c.remove()
		return nil, err
	}
	cmd.Process.Release() // p owns the child from here on
	return p, nil
}

// cgroup is nil where there can be none: the processes are found without it, too.
func (o Options) cgroup() *cgroup {
	if o.Cgroups == nil || o.GroupOnly {
		return nil
	}
	c, err := o.Cgroups.make(o.Name)
	if err != nil {
		return nil
	}
	return c
}

// forkInto passes nothing of the holder's environment on: what the daemon gets is in the
// order.
func forkInto(c *cgroup, o Options, child *os.File) (*exec.Cmd, int, error) {
	cmd := &exec.Cmd{
		Path:        o.Shim[0],
		Args:        append(append([]string(nil), o.Shim...), strconv.Itoa(len(o.Listeners))),
		Env:         []string{"GOMAXPROCS=1"},
		Stdin:       o.Stdin,
		Stdout:      o.Stdout,
		Stderr:      o.Stderr,
		ExtraFiles:  []*os.File{child},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if c != nil {
		dir, err := c.attr(cmd.SysProcAttr)
		if err != nil {
			return nil, -1, err
		}
		defer dir.Close()
	}
	pidfd := pidfdAttr(cmd.SysProcAttr)
	err := cmd.Start()
	return cmd, *pidfd, err
}

// told is a message of the shim's: one of the three.
type told struct {
	Path, Dir string     // what will run; its file may come along
	Bind      *offered   `json:",omitempty"` // what became of the filter; its notify fd comes along
	Fault     *ExecError // why nothing will
}

// heard is what it told.
type heard struct {
	program *Program
	bound   bound
}

func (h *heard) close() {
	h.program.close()
	h.bound.close()
}

// instruct sends the order and waits for the exec, which closes the shim's end.
func instruct(ctx context.Context, conn *net.UnixConn, o Options) (heard, error) {
	if err := sendOrder(ctx, conn, o); err != nil {
		return heard{}, err
	}
	var h heard
	for {
		answer, err := handoff.Receive(ctx, conn, handoff.Limit{Files: 1})
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return h, nil
		}
		if err != nil {
			err = fmt.Errorf("can't start %s: the shim did not finish: %w", o.Argv[0], err)
		} else {
			err = h.understand(answer, o.Argv[0])
		}
		if err != nil {
			h.close()
			return heard{}, err
		}
	}
}

func sendOrder(ctx context.Context, conn *net.UnixConn, o Options) error {
	body, err := json.Marshal(o.Order)
	if err != nil {
		return fmt.Errorf("can't write the order for %s: %w", o.Argv[0], err)
	}
	files := o.Listeners
	if o.Program != nil {
		fd, err := duplicate(o.Program)
		if err != nil {
			return fmt.Errorf("can't pass the program of %s: %w", o.Argv[0], err)
		}
		defer unix.Close(fd)
		files = append(slices.Clone(files), handoff.File{Name: programName, FD: fd})
	}
	err = handoff.Send(ctx, conn, handoff.Message{Body: body, Files: files})
	// A shim that has gone has perhaps said why.
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("can't pass listeners to %s: %w", o.Argv[0], err)
	}
	return nil
}

// programName is no listener's: those have no slash in their names.
const programName = "/program"

func duplicate(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	var failed error
	err = raw.Control(func(from uintptr) { fd, failed = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, firstFD) })
	return fd, errors.Join(err, failed)
}

// understand takes the message's files.
func (h *heard) understand(m handoff.Message, command string) error {
	var t told
	err := json.Unmarshal(m.Body, &t)
	if err == nil && t.Fault == nil && t.Bind != nil {
		h.bound.close() // nobody tells twice
		h.bound, err = understandBinds(*t.Bind, m.Files, command)
		return err
	}
	if err != nil || t.Fault != nil || t.Path == "" {
		handoff.CloseFiles(m.Files)
	}
	switch {
	case err != nil || t.Fault == nil && t.Path == "":
		return fmt.Errorf("can't start %s: the shim answered %q", command, m.Body)
	case t.Fault != nil:
		t.Fault.Command = cmp.Or(t.Fault.Command, command) // it may have given up before it knew
		return t.Fault
	}
	h.program.close() // nobody tells twice
	h.program = &Program{Path: t.Path, Dir: t.Dir}
	if len(m.Files) > 0 {
		h.program.File = os.NewFile(uintptr(m.Files[0].FD), t.Path)
	}
	return nil
}

func (p *Program) close() {
	if p != nil && p.File != nil {
		p.File.Close()
	}
}
