package bind

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestBindIsSeen(t *testing.T) {
	d := start(t, setup{})
	for _, c := range []struct {
		socket, addr, want string
		family             int
	}{
		{"tcp4", "127.0.0.1:0", "127.0.0.1:0", unix.AF_INET},
		{"tcp4", "0.0.0.0:12345", "0.0.0.0:12345", unix.AF_INET},
		{"tcp6", "[::1]:65535", "[::1]:65535", unix.AF_INET6},
		{"tcp6", "[::]:1", "[::]:1", unix.AF_INET6},
		{"tcp6", "[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80", unix.AF_INET6},
		{"tcp6", "[fe80::1%1]:80", "[fe80::1%lo]:80", unix.AF_INET6},
		{"tcp6", "[fe80::1%4711]:80", "[fe80::1%4711]:80", unix.AF_INET6},
		{"udp4", "127.0.0.1:53", "127.0.0.1:53", unix.AF_INET},
	} {
		fd := d.number(t, "socket %s", c.socket)
		call := d.bind(t, fd, c.addr)
		if call.Addr != netip.MustParseAddrPort(c.want) || call.Family != c.family || call.PID != d.cmd.Process.Pid {
			t.Errorf("%s: %s, family %d", c.addr, call, call.Family)
		}
		must(t, call.Answer(unix.EXDEV))
		if got := d.said(t); got != "EXDEV" {
			t.Errorf("%s: the daemon got %s", c.addr, got)
		}
	}
}

// What is no address is for the kernel to refuse.
func TestOddAddresses(t *testing.T) {
	d := start(t, setup{})
	fd := d.number(t, "socket tcp4")
	for _, c := range []struct {
		hex, want string
		family    int
	}{
		{"", "EINVAL", 0},
		{"02", "EINVAL", 0},
		{"0200", "EINVAL", unix.AF_INET},
		{"0100000000000000000000000000000000", "EAFNOSUPPORT", unix.AF_UNIX},
		{strings.Repeat("02", 129), "EINVAL", 0},
	} {
		d.begin(t, "raw %d %s", fd, c.hex+"x")
		call := d.next(t)
		if call.Family != c.family || call.Addr.IsValid() || call.Unread != nil {
			t.Errorf("%q: %s, family %d, %v", c.hex, call, call.Family, call.Unread)
		}
		must(t, call.Continue())
		if got := d.said(t); got != c.want {
			t.Errorf("%q: %s, want %s", c.hex, got, c.want)
		}
	}
}

func TestContinue(t *testing.T) {
	d := start(t, setup{})
	fd := d.number(t, "socket tcp4")
	call := d.bind(t, fd, "127.0.0.1:0")
	must(t, call.Continue())
	if got := d.said(t); got != "<nil>" {
		t.Fatal(got)
	}
	for _, again := range []error{call.Continue(), call.Answer(0)} {
		if !errors.Is(again, ErrAnswered) {
			t.Errorf("a second answer: %v", again)
		}
	}
	if a := addrPort(t, d.do(t, "name %d", fd)); a.Port() == 0 || a.Addr().String() != "127.0.0.1" {
		t.Errorf("it is at %s", a)
	}
	d.begin(t, "listen %d 42", fd)
	call = d.next(t)
	if call.Op != Listen || call.FD != fd || call.Backlog != 42 || call.PID != d.cmd.Process.Pid {
		t.Errorf("%s", call)
	}
	must(t, call.Answer(unix.EADDRINUSE))
	if got := d.said(t); got != "EADDRINUSE" {
		t.Error(got)
	}
}

// A call whose thread is killed leaves nobody waiting.
func TestThreadThatDies(t *testing.T) {
	d := start(t, setup{})
	fd := d.number(t, "socket tcp4")
	call := d.bind(t, fd, "127.0.0.1:0")
	d.kill()
	if _, err := call.Socket(); !errors.Is(err, ErrGone) {
		t.Errorf("its socket: %v", err)
	}
	if err := call.Replace(0, nil); !errors.Is(err, ErrGone) {
		t.Errorf("replacing it: %v", err)
	}
	if _, err := call.SameNetns(nil); !errors.Is(err, ErrGone) {
		t.Errorf("its namespace: %v", err)
	}
	if err := call.Answer(0); err != nil {
		t.Errorf("answering it: %v", err)
	}
	d.ends(t)
}

// One that was not received yet is passed over.
func TestThreadThatDiesUnseen(t *testing.T) {
	d := start(t, setup{})
	fd := d.number(t, "socket tcp4")
	d.begin(t, "bind %d 127.0.0.1:0", fd)
	waits := func() bool { // for the holder, in the kernel
		tasks, _ := filepath.Glob("/proc/" + strconv.Itoa(d.cmd.Process.Pid) + "/task/*/syscall")
		for _, f := range tasks {
			if b, _ := os.ReadFile(f); strings.HasPrefix(string(b), strconv.Itoa(unix.SYS_BIND)+" ") {
				return true
			}
		}
		return false
	}
	for ctx := deadline(t); !waits(); {
		if ctx.Err() != nil {
			t.Skip("/proc/PID/syscall tells nothing here")
		}
	}
	d.kill()
	d.ends(t)
}

// The end is the last process's, and calls of whoever is left are seen before it.
func TestEnd(t *testing.T) {
	d := start(t, setup{})
	d.begin(t, "leave")
	call := d.next(t)
	if got := d.said(t); got != "<nil>" {
		t.Fatal(got)
	}
	d.kill()
	if call.PID == d.cmd.Process.Pid || call.PID == 0 {
		t.Errorf("%s, and the daemon is %d", call, d.cmd.Process.Pid)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := d.watch.Next(ctx); err == nil || err == io.EOF || !strings.Contains(err.Error(), "enough") {
		t.Errorf("it ended with the daemon, and not with its grandchild: %v", err)
	}
	must(t, call.Continue())
	d.ends(t)
}

// A context that ends while nothing comes ends the waiting, and not the watch.
func TestNextFollowsContext(t *testing.T) {
	d := start(t, setup{})
	for range 3 {
		ctx, cancel := context.WithCancelCause(t.Context())
		waits := make(chan error)
		go func() {
			_, err := d.watch.Next(ctx)
			waits <- err
		}()
		cancel(errors.New("enough"))
		if err := <-waits; err == nil || !strings.Contains(err.Error(), "enough") {
			t.Errorf("it was told to end, and: %v", err)
		}
		fd := d.number(t, "socket tcp4")
		must(t, d.bind(t, fd, "127.0.0.1:0").Continue())
		if got := d.said(t); got != "<nil>" {
			t.Error(got)
		}
	}
}

// Without its holder a daemon gets ENOSYS, the call that waits too.
func TestHolderDies(t *testing.T) {
	d := start(t, setup{})
	fd := d.number(t, "socket tcp4")
	call := d.bind(t, fd, "127.0.0.1:0")
	waits := make(chan error)
	go func() {
		_, err := d.watch.Next(deadline(t))
		waits <- err
	}()
	must(t, d.watch.Close())
	if err := <-waits; !errors.Is(err, os.ErrClosed) {
		t.Errorf("waiting: %v", err)
	}
	if got := d.said(t); got != "ENOSYS" {
		t.Errorf("the call that waited: %s", got)
	}
	if got := d.do(t, "bind %d 127.0.0.1:0", fd); got != "ENOSYS" {
		t.Errorf("the next one: %s", got)
	}
	if err := call.Answer(0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("answering: %v", err)
	}
}

// Signals come all the time. Where a received call waits on, it is the same until its
// answer; where it does not, it comes again until an answer is in time.
func TestSignalStorm(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run("old="+strconv.FormatBool(old), func(t *testing.T) {
			d := start(t, setup{old: old})
			fd := d.number(t, "socket tcp4")
			d.begin(t, "storm %d 127.0.0.1:0", fd)
			call := d.next(t)
			for ctx := deadline(t); old && !errors.Is(call.alive(), ErrGone) && ctx.Err() == nil; {
			}
			for range 100 {
				must(t, unix.Tgkill(call.PID, call.TID, unix.SIGURG)) // now, if all others came before
			}
			gone := errors.Is(call.alive(), ErrGone)
			if gone != old && hasKillable(t) {
				t.Errorf("after a hundred signals it is gone: %v", gone)
			}
			if gone {
				call = d.next(t)
			}
			bound := map[uint64]unix.Errno{}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				answerByInode(t, d, call, bound)
			}()
			if got := d.said(t); got != "<nil>" {
				t.Errorf("the daemon got %s", got)
			}
			d.kill()
			<-ended
			if len(bound) != 1 {
				t.Errorf("%d sockets were bound", len(bound))
			}
		})
	}
}

// answerByInode binds each socket once, and answers until the daemon has ended.
func answerByInode(t *testing.T, d *daemon, call *Call, bound map[uint64]unix.Errno) {
	for {
		if s, err := call.Socket(); err == nil {
			if _, known := bound[s.Inode]; !known {
				bound[s.Inode] = s.Bind(call.Addr)
			}
			errno := bound[s.Inode]
			s.Close()
			if err := call.Answer(errno); err != nil {
				t.Error(err)
			}
		} else if !errors.Is(err, ErrGone) {
			t.Error(err)
		}
		var err error
		if call, err = d.watch.Next(deadline(t)); err != nil {
			if err != io.EOF {
				t.Error(err)
			}
			return
		}
	}
}

// hasKillable: WAIT_KILLABLE_RECV came with Linux 5.19.
func hasKillable(t *testing.T) bool {
	var u unix.Utsname
	must(t, unix.Uname(&u))
	release := unix.ByteSliceToString(u.Release[:])
	return !strings.HasPrefix(release, "5.") || strings.HasPrefix(release, "5.19")
}

// A program of another architecture's numbers is not seen, and not hindered.
func TestForeignArchitecture(t *testing.T) {
	program := filepath.Join(t.TempDir(), "i386")
	build := exec.Command("go", "build", "-o", program, "./testdata/listener")
	build.Env = append(os.Environ(), "GOARCH=386", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("no i386 program can be built: %v: %s", err, out)
	}
	if err := exec.Command(program, "true").Run(); err != nil {
		t.Skipf("no i386 program runs here: %v", err)
	}
	d := start(t, setup{run: []string{program}})
	if a := addrPort(t, d.said(t)); a.Port() == 0 {
		t.Errorf("it is at %s", a)
	}
	d.ends(t)
}
