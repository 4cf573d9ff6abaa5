package lab

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gapless-dev/gapless/bench/netns"
)

//go:embed systemd.sh
var script []byte

// Inside is where [Lab.Share] is seen inside.
const Inside = "/srv/share"

const (
	bootTime  = 90 * time.Second // more than the script waits
	closeTime = 30 * time.Second
)

// Lab is a running systemd. Its methods may be called from any goroutine.
type Lab struct {
	dir   string
	guard *exec.Cmd
	hold  io.Closer // the lab lives as long as this is open
	said  *bytes.Buffer
	pid   int
	net   *netns.Namespace

	closed atomic.Bool
}

// Missing says what this machine lacks for a lab, or nil.
func Missing() error {
	if os.Geteuid() != 0 {
		return errors.New("a systemd of one's own needs root")
	}
	for _, program := range []string{"bash", "unshare", "nsenter", "pivot_root", "systemctl"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed", program)
		}
	}
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		return errors.New("systemd is not installed")
	}
	return nil
}

// Boot returns when systemd has started all there is to start. The caller closes
// the lab. ctx bounds the boot only.
func Boot(ctx context.Context) (*Lab, error) {
	if err := Missing(); err != nil {
		return nil, fmt.Errorf("can't boot a systemd: %w", err)
	}
	dir, err := os.MkdirTemp("", "gapless-lab-")
	if err != nil {
		return nil, fmt.Errorf("can't boot a systemd: %w", err)
	}
	l := &Lab{dir: dir, said: &bytes.Buffer{}}
	if err := l.boot(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("can't boot a systemd: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lab) boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	path := filepath.Join(l.dir, "systemd.sh")
	// Users that are not root are to find what is shared.
	if err := errors.Join(os.Chmod(l.dir, 0o755), os.WriteFile(path, script, 0o700)); err != nil {
		return err
	}
	guard := exec.Command("bash", path, "guard", l.dir)
	// Ctrl-C is for the tests; the guard sees that they have ended.
	guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	guard.Stderr = l.said
	hold, err := guard.StdinPipe()
	if err != nil {
		return err
	}
	out, err := guard.StdoutPipe()
	if err != nil {
		return errors.Join(err, hold.Close())
	}
	if err := guard.Start(); err != nil {
		return err // which has closed the pipes
	}
	l.guard, l.hold = guard, hold
	stop := context.AfterFunc(ctx, func() { guard.Process.Signal(syscall.SIGTERM) })
	line, err := bufio.NewReader(out).ReadString('\n')
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("it ended: %w", err)
	}
	return l.enter(line)
}

// enter takes what the guard said when it was up.
func (l *Lab) enter(line string) (err error) {
	if l.pid, err = strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "up "))); err != nil {
		return fmt.Errorf("its guard said %q", line)
	}
	l.net, err = netns.Of(l.pid)
	return err
}

// Close kills all that runs inside and waits until nothing is left of it. A second
// one does nothing.
func (l *Lab) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	var errs []error
	if l.net != nil {
		errs = append(errs, l.net.Close())
	}
	if l.guard != nil {
		errs = append(errs, l.dismiss())
	}
	// The guard's mounts are in no namespace but its own. It removes the directory by
	// itself, unless it was killed before it could.
	return errors.Join(append(errs, os.RemoveAll(l.dir))...)
}

func (l *Lab) dismiss() error {
	l.hold.Close()
	overdue := time.AfterFunc(closeTime, func() { syscall.Kill(-l.guard.Process.Pid, syscall.SIGKILL) })
	defer overdue.Stop()
	if err := l.guard.Wait(); err != nil {
		return fmt.Errorf("the lab's guard: %w: %s", err, l.said)
	}
	return nil
}

// Share is a directory of both sides; inside it is [Inside].
func (l *Lab) Share() string { return filepath.Join(l.dir, "share") }

// Root is where the file system of inside is seen from outside. It is valid only as
// long as the lab runs.
func (l *Lab) Root() string { return fmt.Sprintf("/proc/%d/root", l.pid) }

// Net is the network of inside; the lab closes it.
func (l *Lab) Net() *netns.Namespace { return l.net }

// DialContext connects to an address inside: a literal IP address and port.
func (l *Lab) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return l.net.DialContext(ctx, network, address)
}

// Command is one that runs inside, in the root directory, with little environment.
func (l *Lab) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	all := append([]string{"-t", strconv.Itoa(l.pid), "-a", "--", name}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", all...)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"}
	cmd.WaitDelay = time.Second
	return cmd
}

// Run runs a command inside and returns what it printed. An error has what it
// printed on standard error, and wraps its [exec.ExitError], or ctx's where that ended
// it.
func (l *Lab) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := l.Command(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, &errs)
	}
	return out.String(), nil
}

// Version of the systemd that runs: 252.
func (l *Lab) Version(ctx context.Context) (int, error) {
	out, err := l.Run(ctx, "systemctl", "--version")
	if err != nil {
		return 0, err
	}
	var version int
	if _, err := fmt.Sscanf(out, "systemd %d", &version); err != nil {
		return 0, fmt.Errorf("can't read systemd's version from %.40q: %w", out, err)
	}
	return version, nil
}
