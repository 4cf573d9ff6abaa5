package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/reload/control"
)

// tty is a terminal with a holder in its foreground, and what is seen on it.
type tty struct {
	*holding
	master *os.File
	slave  *os.File
	read   chan struct{}
}

func openTTY(t *testing.T) *tty {
	t.Helper()
	// Blocking, and never in the runtime's poller: closing it must be the last close.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &tty{master: os.NewFile(uintptr(fd), "terminal"), slave: slave, read: make(chan struct{})}
}

// onTTY runs it in a session of its own, whose terminal this is.
func onTTY(t *testing.T, set func(*exec.Cmd), prepare func(slave int), args ...string) *tty {
	t.Helper()
	x := openTTY(t)
	if prepare != nil {
		prepare(int(x.slave.Fd()))
	}
	x.holding = startHolding(t, binaries(t), func(c *exec.Cmd) {
		c.Stdin, c.Stdout, c.Stderr = x.slave, x.slave, x.slave
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
		if set != nil {
			set(c)
		}
	}, nil, "", append([]string{"-l", "127.0.0.1:0"}, args...)...)
	x.slave.Close()
	go func() {
		defer close(x.read)
		io.Copy(x.log, x.master)
	}()
	t.Cleanup(func() {
		x.hangUp()
		<-x.read
	})
	return x
}

func (x *tty) hangUp() { x.master.Close() }

func (x *tty) typed(key byte) {
	x.t.Helper()
	if _, err := x.master.Write([]byte{key}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *tty) code() int {
	x.t.Helper()
	select {
	case <-x.ended:
	case <-time.After(patience):
		x.t.Fatal("the holder does not end")
	}
	return x.cmd.ProcessState.ExitCode()
}

const ctrlC = 3

// The daemon is told to stop by the holder, once, and not by the terminal too.
func TestCtrlC(t *testing.T) {
	x := onTTY(t, nil, nil, "--stop-timeout", "1s", "--", "DIR/daemon", "terms")
	x.said("generation 1 live")
	x.typed(ctrlC)
	if code := x.code(); code != 137 {
		t.Errorf("it ended with %d", code)
	}
	if log := x.log.String(); strings.Count(log, "daemon got ") != 1 || !strings.Contains(log, "daemon got terminated") {
		t.Error("the daemon did not get one TERM and nothing else")
	}
}

func TestCtrlCEndsADaemonThatStops(t *testing.T) {
	x := onTTY(t, nil, nil, "--", "DIR/daemon")
	x.said("generation 1 live")
	x.typed(ctrlC)
	if code := x.code(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

func TestCtrlCTwiceKills(t *testing.T) {
	x := onTTY(t, nil, nil, "--stop-timeout", "10m", "--", "DIR/daemon", "ignore-term")
	x.said("generation 1 live")
	x.typed(ctrlC)
	x.said("was told to stop")
	x.typed(ctrlC)
	if code := x.code(); code != 137 {
		t.Errorf("it ended with %d", code)
	}
}

// When the terminal has gone the holder ends as told, with its daemon's code, though
// nothing can be written any more; a daemon that goes on writing ends too.
func TestTerminalGone(t *testing.T) {
	for _, mode := range []string{"", "chatty"} {
		x := onTTY(t, nil, nil, "--", "DIR/daemon", mode)
		x.said("generation 1 live")
		s := x.live(1)
		x.hangUp()
		if code := x.code(); code != 0 {
			t.Errorf("it ended with %d", code)
		}
		untilEnded(t, s.Live().PID)
	}
}

// A daemon that writes is no background job that the terminal stops, and one that a
// HUP reloads stays one as long as the terminal is there.
func TestOutputOnATerminalThatStopsBackgroundJobs(t *testing.T) {
	stops := func(fd int) {
		termios, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		termios.Lflag |= unix.TOSTOP
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, termios); err != nil {
			t.Fatal(err)
		}
	}
	x := onTTY(t, nil, stops, "--", "DIR/daemon", "env")
	x.said("env GAPLESS_GENERATION=1")
	x.live(1)
	x.cmd.Process.Signal(syscall.SIGHUP)
	x.said("env GAPLESS_GENERATION=2")
	x.live(2)
	x.typed(ctrlC)
	if code := x.code(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

// With nohup it outlives its terminal: the hang-up is no more than a reload.
func TestNohup(t *testing.T) {
	x := onTTY(t, func(c *exec.Cmd) {
		c.Args = append([]string{"nohup", c.Path}, c.Args[1:]...)
		c.Path, _ = exec.LookPath("nohup")
		c.Dir = t.TempDir() // for nohup.out
	}, nil, "--", "DIR/daemon")
	x.client = control.NewClient("web", x.dir+"/run/web.sock")
	x.live(1)
	x.hangUp()
	x.live(2)
	if code := x.end(syscall.SIGTERM); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}
