package conns

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// silent is a process that accepts everything and sends nothing.
type silent struct {
	pid  int
	addr string
}

func (s silent) port() uint16 { return netip.MustParseAddrPort(s.addr).Port() }

// serve starts one, with a listener of its own, or one that it is given, at addr.
func serve(t testing.TB, at string, given *net.TCPListener, set func(*exec.Cmd)) silent {
	t.Helper()
	file := filepath.Join(t.TempDir(), "address")
	cmd := child(t, func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), "CONNS_TEST_ROLE=serve", "CONNS_TEST_ADDR="+at, "CONNS_TEST_FILE="+file)
		if given != nil {
			f, err := given.File()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			cmd.Env, cmd.ExtraFiles = append(cmd.Env, "CONNS_TEST_GIVEN=1"), []*os.File{f}
		}
		if set != nil {
			set(cmd)
		}
	})
	addr, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return silent{cmd.Process.Pid, string(addr)}
}

func serveSilently() error {
	if err := raiseFiles(); err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(os.Getenv("CONNS_TEST_ADDR"))
	if err != nil {
		return err
	}
	fd := 3
	if os.Getenv("CONNS_TEST_GIVEN") == "" {
		if fd, err = listenRaw(at); err != nil {
			return err
		}
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	port := 0
	switch n := name.(type) {
	case *unix.SockaddrInet4:
		port = n.Port
	case *unix.SockaddrInet6:
		port = n.Port
	}
	if err := os.WriteFile(os.Getenv("CONNS_TEST_FILE"), []byte(netip.AddrPortFrom(at.Addr(), uint16(port)).String()), 0o600); err != nil {
		return err
	}
	go func() {
		for {
			if _, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC); err != nil && !errors.Is(err, unix.EINTR) {
				fmt.Fprintln(os.Stderr, "can't accept:", err)
				return
			}
		}
	}()
	fmt.Println("running")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// listenRaw has the mark of the cgroup that this process is in now; SO_REUSEPORT lets others listen beside.
func listenRaw(at netip.AddrPort) (int, error) {
	family := unix.AF_INET
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(at.Port()), Addr: [4]byte(at.Addr().AsSlice()[:4])}
	if at.Addr().Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), unix.Bind(fd, sa), unix.Listen(fd, 4096))
}

// crowded starts a process with n connections to a server on 127.0.0.1.
func crowded(t testing.TB, s silent, n int) {
	t.Helper()
	child(t, func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), "CONNS_TEST_ROLE=crowd", "CONNS_TEST_ADDR="+s.addr, "CONNS_TEST_N="+strconv.Itoa(n))
	})
}

func connectCrowd(addr, number string) error {
	to, err := netip.ParseAddrPort(addr)
	n, notNumber := strconv.Atoi(number)
	if err := errors.Join(err, notNumber, raiseFiles()); err != nil {
		return err
	}
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		for {
			err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: [4]byte{127, 0, 0, 1}})
			if err == nil || errors.Is(err, unix.EISCONN) {
				break
			}
			if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EALREADY) {
				return err
			}
		}
	}
	fmt.Println("running")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// crowdFiles is what each of two processes needs that share 20,000 connections, which the kernel does not halve exactly.
const crowdFiles = 12_000

// raiseFiles has this process have as many descriptors as it may.
func raiseFiles() error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
}

// needFiles skips where a process may not have that many descriptors.
func needFiles(b *testing.B) {
	b.Helper()
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		b.Fatal(err)
	}
	if l.Max < crowdFiles {
		b.Skipf("needs a limit of %d descriptors (ulimit -Hn)", crowdFiles)
	}
}

// cpuTime is what this process has used.
func cpuTime(t testing.TB) int64 {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// inNewCgroup makes one for a child to begin its life in, and returns its number.
func inNewCgroup(t testing.TB) (uint64, func(*exec.Cmd)) {
	t.Helper()
	root := unifiedRoot(t)
	dir, err := os.MkdirTemp(root, "gapless-conns-")
	if err != nil {
		t.Skip("no cgroup can be made, as root where cgroup v2 is mounted can: ", err)
	}
	t.Cleanup(func() {
		eventually(t, "an empty cgroup", func() bool { return unix.Rmdir(dir) == nil })
	})
	at, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { at.Close() })
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, UseCgroupFD: true, CgroupFD: int(at.Fd())}
	}
}

// unifiedRoot is where cgroup v2 is mounted.
func unifiedRoot(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1]
		}
	}
	t.Skip("needs cgroup v2, which is not mounted here")
	return ""
}

// listeners are the inodes of those that it has open.
func (s silent) listeners(t testing.TB) (all []uint64) {
	t.Helper()
	open, err := Sockets(s.pid)
	if err != nil {
		t.Fatal(err)
	}
	found, err := openDiag(t).Dump(t.Context(), Query{States: Set(Listen), Ports: []uint16{s.port()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range found {
		if open[c.Inode] {
			all = append(all, c.Inode)
		}
	}
	return all
}
