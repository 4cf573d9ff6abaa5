package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inContainer is pid 1 of namespaces of its own: it makes a root that has what it
// must, and becomes gapless in it.
//
//	container DIR UID WHAT... -- ARG...
//
// DIR has the binaries; of WHAT there may be "tmp" (a directory that can be written
// to), "run", "noproc", and "hidepid".
func inContainer(args []string) int {
	var what []string
	dir, uid, rest := args[0], args[1], args[2:]
	for rest[0] != "--" {
		what, rest = append(what, rest[0]), rest[1:]
	}
	id, err := strconv.Atoi(uid)
	if err == nil {
		err = makeRoot(dir, strings.Join(what, " "), id)
	}
	if err == nil {
		err = errors.Join(syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id))
	}
	if err == nil {
		err = syscall.Exec("/gapless", append([]string{"gapless", "run"}, rest[1:]...), []string{"PATH=/", "GORACE=atexit_sleep_ms=0"})
	}
	fmt.Fprintln(os.Stderr, "no container:", err)
	return 99
}

func makeRoot(dir, what string, uid int) error {
	has := func(word string) bool { return strings.Contains(what, word) }
	root := filepath.Join(dir, "root")
	err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), os.MkdirAll(root, 0o755), unix.Mount("root", root, "tmpfs", 0, "mode=755"),
		os.Mkdir(root+"/proc", 0o755), os.Mkdir(root+"/dev", 0o755), copyFile(dir+"/gapless", root+"/gapless"), os.Link(root+"/gapless", root+"/daemon"),
		unix.Mknod(root+"/dev/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), os.Chmod(root+"/dev/null", 0o666))
	for _, d := range []string{"run", "tmp"} {
		if has(d) {
			err = errors.Join(err, os.Mkdir(root+"/"+d, 0o755), unix.Mount(d, root+"/"+d, "tmpfs", 0, "mode=1777"))
		}
	}
	if !has("noproc") {
		options := ""
		if has("hidepid") {
			options = "hidepid=2"
		}
		err = errors.Join(err, unix.Mount("proc", root+"/proc", "proc", 0, options))
	}
	return errors.Join(err, unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""), unix.Chroot(root), os.Chdir("/"), loopbackUp())
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// container is a holder that is pid 1.
type container struct {
	t     *testing.T
	cmd   *exec.Cmd
	uid   int
	log   *words
	ended chan struct{}
}

// staticBinaries are this package's, without cgo: a root of a container has no
// libraries.
func staticBinaries(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a container by hand")
	}
	dir, err := os.MkdirTemp("", "gapless")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	build := exec.Command("go", "test", "-c", "-o", dir+"/gapless", ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Link(dir+"/gapless", dir+"/container")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func startContainer(t *testing.T, dir string, uid int, what string, args ...string) *container {
	t.Helper()
	c := &container{t: t, uid: uid, log: &words{}, ended: make(chan struct{})}
	all := append([]string{dir, strconv.Itoa(uid)}, strings.Fields(what)...)
	all = append(append(all, "--", "-n", "web", "-l", "127.0.0.1:8080"), args...)
	c.cmd = exec.Command(dir+"/container", all...)
	c.cmd.Env = []string{}
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Setsid:     true,
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.cmd.Wait()
		close(c.ended)
	}()
	t.Cleanup(func() {
		c.cmd.Process.Kill()
		<-c.ended
		if t.Failed() {
			t.Logf("it said:\n%s", c.log)
		}
	})
	return c
}

// exec is what "docker exec" does.
func (c *container) exec(args ...string) (string, error) {
	id := strconv.Itoa(c.uid)
	base := []string{"-t", strconv.Itoa(c.cmd.Process.Pid), "-m", "-n", "-p", "-i", "-u", "-r", "-S", id, "-G", id, "--"}
	cmd := exec.Command("nsenter", append(base, args...)...)
	cmd.Env = []string{"PATH=/usr/bin:/bin:/sbin:/"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// until asks inside until it is answered so.
func (c *container) until(want string) {
	c.t.Helper()
	got, err := "", error(nil)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got, err = c.exec("/daemon", "ask", "127.0.0.1:8080"); err == nil && got == want {
			return
		}
		select {
		case <-c.ended:
			c.t.Fatalf("it has ended: %v", c.cmd.ProcessState)
		default:
		}
	}
	c.t.Fatalf("got %q, %v, and want %q", got, err, want)
}

// said waits until the holder has said it.
func (c *container) said(what string) {
	c.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(c.log.String(), what) {
			return
		}
	}
	c.t.Fatalf("it never said %q", what)
}

func (c *container) signal(s os.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// code it ends with, and how long that takes.
func (c *container) code() (int, time.Duration) {
	c.t.Helper()
	start := time.Now()
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.t.Fatal("it does not end")
	}
	return c.cmd.ProcessState.ExitCode(), time.Since(start)
}

// askOnce is the daemon's mode for tests inside: it prints what is answered.
func askOnce(addr string) int {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
	b, err := io.ReadAll(conn)
	_, body, _ := strings.Cut(string(b), "\r\n\r\n")
	fmt.Print(body)
	if err != nil || body == "" {
		return 1
	}
	return 0
}

// A container's holder is pid 1, whatever there is of a file system.
func TestContainer(t *testing.T) {
	dir := staticBinaries(t)
	for _, c := range []struct {
		name    string
		uid     int
		what    string
		control bool // there is a place for the control socket
		warns   string
	}{
		{"root, no place to write", 0, "", false, "it runs without a control socket"},
		{"root, no run", 0, "tmp", true, ""},
		{"root, all there", 0, "run tmp", true, ""},
		{"any user, no place to write", 12345, "", false, "it runs without a control socket"},
		{"any user, no run", 12345, "tmp", true, ""},
		{"any user, hidepid", 12345, "tmp hidepid", true, ""},
		{"root, no proc", 0, "run noproc", true, "/proc is not mounted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startContainer(t, dir, c.uid, c.what, "--", "/daemon", "terms")
			p.until("generation 1")
			p.signal(syscall.SIGHUP)
			p.until("generation 2")
			if out, err := p.exec("/gapless", "reload"); c.control && err != nil || !c.control && err == nil {
				t.Errorf("gapless reload: %s, %v", out, err)
			} else if c.control {
				p.until("generation 3")
			}
			if !strings.Contains(p.log.String(), c.warns) || c.warns == "" && strings.Contains(p.log.String(), `"warn"`) {
				t.Errorf("it does not say %q alone", c.warns)
			}
			p.signal(syscall.SIGKILL)
			p.code()
		})
	}
}

// What "docker stop" does: TERM, and ten seconds of patience.
func TestContainerIsStopped(t *testing.T) {
	dir := staticBinaries(t)
	t.Run("deaf daemon", func(t *testing.T) {
		p := startContainer(t, dir, 12345, "tmp", "--", "/daemon", "terms")
		p.until("generation 1")
		p.signal(syscall.SIGTERM)
		code, took := p.code()
		if n := strings.Count(p.log.String(), "daemon got terminated"); n != 1 || code != 137 || took > 10*time.Second {
			t.Errorf("it ended with %d after %s, and the daemon got TERM %d times", code, took, n)
		}
	})
	for _, c := range []struct {
		name string
		args []string
		then []syscall.Signal
		code int
	}{
		{"daemon that stops", []string{"--", "/daemon"}, []syscall.Signal{syscall.SIGTERM}, 0},
		{"twice", []string{"--stop-timeout", "10m", "--", "/daemon", "ignore-term"}, []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, 137},
		{"orphan left", []string{"--stop-timeout", "1s", "--", "/daemon", "grandchild"}, []syscall.Signal{syscall.SIGTERM}, 0},
		{"daemon ends by itself", []string{"--restart", "no", "--", "/daemon", "doomed"}, nil, 3},
		{"no place for a control socket that was asked for", []string{"--control", "/run/x.sock", "--", "/daemon"}, nil, 1},
		{"no such daemon", []string{"--", "/nothing"}, nil, 127},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startContainer(t, dir, 12345, "tmp", c.args...)
			if len(c.then) > 0 {
				p.said("generation 1 live")
			}
			for i, sig := range c.then {
				p.signal(sig)
				if i == 0 {
					p.said("was told to stop")
				}
			}
			if code, _ := p.code(); code != c.code {
				t.Errorf("it ended with %d, not %d", code, c.code)
			}
		})
	}
}
