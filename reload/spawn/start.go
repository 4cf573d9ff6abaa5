package spawn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"os"

	"github.com/gapless-dev/gapless/handoff"
)

// startTimeout bounds what lies between fork and the daemon's exec: a file system
// that hangs must not hang the service.
const startTimeout = 20 * time.Second

// Start runs the daemon and returns once it has been exec'd. An [*ExecError] says
// that the command could not be run. It may be called by any goroutine.
func Start(ctx context.Context, o Options) (*Process, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	conn, child, err := handoff.Pair()
	if err != nil {
		return nil, fmt.Errorf("can't start %s: %w", o.Argv[0], err)
	}
	defer conn.Close()
	p, err := fork(o, child)
	child.Close()
	if err != nil {
		return nil, err
	}
	if err := instruct(ctx, conn, o); err != nil {
		p.SignalGroup(syscall.SIGKILL)
		<-p.Gone()
		return nil, err
	}
	return p, nil
}

// fork starts the shim. Nothing of the holder's environment reaches it: what the
// daemon gets is in the order.
func fork(o Options, child *os.File) (*Process, error) {
	cmd := exec.Cmd{
		Path:        o.Shim[0],
		Args:        append(append([]string(nil), o.Shim...), strconv.Itoa(len(o.Listeners))),
		Env:         []string{"GOMAXPROCS=1"},
		Stdin:       o.Stdin,
		Stdout:      o.Stdout,
		Stderr:      o.Stderr,
		ExtraFiles:  []*os.File{child},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	pidfd := pidfdAttr(cmd.SysProcAttr)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("can't start %s: %w", o.Argv[0], err)
	}
	p, err := follow(cmd.Process.Pid, *pidfd)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, err
	}
	cmd.Process.Release() // p owns the child from here on
	return p, nil
}

// instruct sends the order and waits for the exec, which closes the shim's end.
func instruct(ctx context.Context, conn *net.UnixConn, o Options) error {
	body, err := json.Marshal(o.Order)
	if err != nil {
		return fmt.Errorf("can't write the order for %s: %w", o.Argv[0], err)
	}
	err = handoff.Send(ctx, conn, handoff.Message{Body: body, Files: o.Listeners})
	// A shim that has gone has perhaps said why.
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("can't pass listeners to %s: %w", o.Argv[0], err)
	}
	answer, err := handoff.Receive(ctx, conn, handoff.Limit{Files: -1})
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("can't start %s: the shim did not finish: %w", o.Argv[0], err)
	}
	fault := &ExecError{}
	if err := json.Unmarshal(answer.Body, fault); err != nil {
		return fmt.Errorf("can't start %s: the shim answered %q", o.Argv[0], answer.Body)
	}
	if fault.Command == "" { // it gave up before it knew
		fault.Command = o.Argv[0]
	}
	return fault
}
