package bind

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// The test binary is also the shim, the daemon under the filter, its children, and
// this binary with fewer rights, told apart by the first argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "__shim":
			os.Exit(shim(os.Args[2:]))
		case "__daemon":
			os.Exit(obey())
		case "__listen":
			fmt.Println(result(unix.Listen(3, 7)))
			os.Exit(0)
		case "__fork":
			os.Exit(leaveGrandchild())
		case "__grandchild":
			fd, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
			os.Exit(0)
		case "__without":
			os.Exit(without(os.Args[2:]))
		}
	}
	os.Exit(leaktest.Run(m, 0))
}

// setup of a daemon.
type setup struct {
	old bool     // no WAIT_KILLABLE_RECV
	uid int      // to become after the filter, if not 0
	run []string // instead of this binary's own daemon
}

// shim puts itself under the filter, tells fd 3, and becomes the daemon.
func shim(args []string) int {
	runtime.LockOSThread()
	line := os.NewFile(3, "holder")
	c, err := net.FileConn(line)
	line.Close()
	if err != nil {
		return fail(err)
	}
	conn := c.(*net.UnixConn)
	put := Install
	if args[0] == "old" {
		put = func() (int, bool, error) { return install(0) }
	}
	notify, noNewPrivs, err := put()
	if err != nil {
		return fail(err)
	}
	m := handoff.Message{Body: []byte(strconv.FormatBool(noNewPrivs)), Files: []handoff.File{{Name: "notify", FD: notify}}}
	if err := handoff.Send(context.Background(), conn, m); err != nil {
		return fail(err)
	}
	if uid, _ := strconv.Atoi(args[1]); uid != 0 {
		if err := syscall.Setuid(uid); err != nil {
			return fail(err)
		}
	}
	return fail(syscall.Exec(args[2], args[2:], os.Environ()))
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// daemon runs under the filter; do has it do things.
type daemon struct {
	cmd        *exec.Cmd
	in         io.WriteCloser
	out        *bufio.Reader
	watch      *Watch
	noNewPrivs bool
}

func start(t testing.TB, s setup) *daemon {
	t.Helper()
	conn, child, err := handoff.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer child.Close()
	when := "new"
	if s.old {
		when = "old"
	}
	if s.run == nil {
		s.run = []string{"/proc/self/exe", "__daemon"}
	}
	d := &daemon{cmd: exec.Command("/proc/self/exe", append([]string{"__shim", when, strconv.Itoa(s.uid)}, s.run...)...)}
	d.cmd.ExtraFiles, d.cmd.Stderr = []*os.File{child}, os.Stderr
	d.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	d.in, _ = d.cmd.StdinPipe()
	out, _ := d.cmd.StdoutPipe()
	d.out = bufio.NewReader(out)
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	child.Close()
	m, err := handoff.Receive(deadline(t), conn, handoff.Limit{Files: 1})
	if err != nil {
		t.Fatalf("no filter: %v", err)
	}
	d.noNewPrivs = string(m.Body) == "true"
	if d.watch, err = NewWatch(m.Files[0].FD); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.watch.Close() })
	return d
}

func (d *daemon) kill() {
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// begin has it do something that waits for an answer to its call.
func (d *daemon) begin(t testing.TB, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(d.in, format+"\n", args...); err != nil {
		t.Fatal(err)
	}
}

func (d *daemon) said(t testing.TB) string {
	t.Helper()
	line, err := d.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the daemon says no more: %v", err)
	}
	return strings.TrimSpace(line)
}

func (d *daemon) do(t testing.TB, format string, args ...any) string {
	t.Helper()
	d.begin(t, format, args...)
	return d.said(t)
}

func (d *daemon) number(t testing.TB, format string, args ...any) int {
	t.Helper()
	line := d.do(t, format, args...)
	n, err := strconv.Atoi(line)
	if err != nil {
		t.Fatalf("%s: %s", fmt.Sprintf(format, args...), line)
	}
	return n
}

func (d *daemon) next(t testing.TB) *Call {
	t.Helper()
	c, err := d.watch.Next(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bind has it bind, up to the call.
func (d *daemon) bind(t testing.TB, fd int, addr string) *Call {
	t.Helper()
	d.begin(t, "bind %d %s", fd, addr)
	c := d.next(t)
	if c.Op != Bind || c.FD != fd || c.Unread != nil {
		t.Fatalf("%s, %v", c, c.Unread)
	}
	return c
}

// ends passes calls by until the last process has gone.
func (d *daemon) ends(t testing.TB) {
	t.Helper()
	for {
		switch c, err := d.watch.Next(deadline(t)); {
		case err == io.EOF:
			return
		case err != nil:
			t.Fatal(err)
		default:
			t.Errorf("%s", c)
			c.Continue()
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func socketOf(t testing.TB, c *Call) *Socket {
	t.Helper()
	s, err := c.Socket()
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func addrPort(t testing.TB, s string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(s)
	must(t, err)
	return a
}
