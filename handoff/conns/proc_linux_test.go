package conns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// runRole is what a child of a test does instead of the tests.
func runRole(role string) int {
	var err error
	switch role {
	case "hold": // says that it runs, and stays until its stdin ends
		fmt.Println("running")
		_, err = io.Copy(io.Discard, os.Stdin)
	case "serve": // accepts at fd 3, or at a listener of its own, and does no more
		err = serveSilently()
	case "crowd": // so many clients of an address
		err = connectCrowd(os.Getenv("CONNS_TEST_ADDR"), os.Getenv("CONNS_TEST_N"))
	case "look": // unprivileged: finds the parent's connection
		err = lookUnprivileged(os.Getenv("CONNS_TEST_LOCAL"), os.Getenv("CONNS_TEST_REMOTE"))
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// child starts the test binary in a role and returns when it says that it runs.
func child(t testing.TB, set func(*exec.Cmd)) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), "CONNS_TEST_ROLE=hold")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	set(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait() // again, where the test has waited
		cancel()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "running\n" {
		t.Fatalf("child said %q, %v", line, err)
	}
	return cmd
}

func TestSockets(t *testing.T) {
	ln := listen(t, "tcp4", "127.0.0.1:0", nil)
	mine, err := Sockets(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !mine[inodeOf(t, ln)] {
		t.Errorf("own listener %d is not in %v", inodeOf(t, ln), mine)
	}
	if _, err := Sockets(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such process: %v", err)
	}
}

func TestSocketInode(t *testing.T) {
	for link, want := range map[string]uint64{
		"socket:[4711]": 4711, "socket:[]": 0, "socket:[12": 0, "pipe:[12]": 0, "/tmp/socket:[12]": 0, "socket:[-1]": 0, "": 0,
	} {
		if got, ok := socketInode([]byte(link)); got != want || ok != (want != 0) {
			t.Errorf("socketInode(%q) = %d, %v", link, got, ok)
		}
	}
}

func TestOwners(t *testing.T) {
	mine := listen(t, "tcp4", "127.0.0.1:0", nil)
	its := listen(t, "tcp4", "127.0.0.1:0", nil)
	inode := inodeOf(t, its)
	file, err := its.File() // a duplicate for the child; the listener is not used any more
	if err != nil {
		t.Fatal(err)
	}
	cmd := child(t, func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{file} })
	file.Close()
	its.Close()

	owners, err := Owners(deadline(t), inodeOf(t, mine), inode, 0, 1<<60)
	if err != nil {
		t.Fatal(err)
	}
	uid := uint32(os.Geteuid())
	if got, want := owners[inodeOf(t, mine)], (Owner{os.Getpid(), ownName(t), uid}); got != want {
		t.Errorf("owner of my listener: %+v, want %+v", got, want)
	}
	if got := owners[inode]; got.PID != cmd.Process.Pid || got.Name != "exe" || got.UID != uid {
		t.Errorf("owner of the child's listener: %+v, want pid %d", got, cmd.Process.Pid)
	}
	if len(owners) != 2 {
		t.Errorf("owners %+v, want 2", owners)
	}
}

func ownName(t *testing.T) string {
	t.Helper()
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return string(comm[:len(comm)-1])
}

func TestGroup(t *testing.T) {
	leader := child(t, func(cmd *exec.Cmd) { cmd.SysProcAttr.Setpgid = true })
	pgid := leader.Process.Pid
	member := child(t, func(cmd *exec.Cmd) { cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pgid = true, pgid })

	want := []int{pgid, member.Process.Pid}
	slices.Sort(want)
	if got := group(t, pgid); !slices.Equal(got, want) {
		t.Errorf("group %v, want %v", got, want)
	}
	if err := member.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Not waited for: a zombie, which stays in /proc but is no member.
	eventually(t, "the dead one is out", func() bool { return slices.Equal(group(t, pgid), []int{pgid}) })
	if _, err := os.Stat("/proc/" + strconv.Itoa(member.Process.Pid)); err != nil {
		t.Errorf("the zombie was gone from /proc, so the test has shown nothing: %v", err)
	}
	if got := group(t, 1<<30); len(got) != 0 {
		t.Errorf("a group that does not exist has %v", got)
	}
}

func group(t *testing.T, pgid int) []int {
	t.Helper()
	pids, err := Group(pgid)
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

func TestParseStat(t *testing.T) {
	for _, tc := range []struct {
		stat  string
		state byte
		pgrp  int
		ok    bool
	}{
		{"7 (sh) S 1 42 3 0 -1", 'S', 42, true},
		{"7 (a) Z 1 5 (b)) R 1 42 3", 'R', 42, true},
		{"7 (line\nfeed ) ) Z 1 42", 'Z', 42, true},
		{"7 (sh) S 1", 0, 0, false},
		{"7 (sh) S 1 x", 'S', 0, false},
		{"7 (sh)", 0, 0, false},
		{"", 0, 0, false},
	} {
		if state, pgrp, ok := parseStat([]byte(tc.stat)); state != tc.state || pgrp != tc.pgrp || ok != tc.ok {
			t.Errorf("parseStat(%q) = %c, %d, %v", tc.stat, state, pgrp, ok)
		}
	}
}

func TestEffectiveUID(t *testing.T) {
	status := "Name:\tUid:\nState:\tS\nUid:\t1\t2\t3\t4\nGid:\t9\t9\t9\t9\n"
	if got := effectiveUID([]byte(status)); got != 2 {
		t.Errorf("uid %d, want 2", got)
	}
	if got := effectiveUID([]byte("Uid:\t1\n")); got != 0 {
		t.Errorf("uid %d of a line without one", got)
	}
}

// An ordinary user sees the connections of all users, with cookie and info, but not whose they are.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	ln := listen(t, "tcp", "[::]:0", nil)
	client := connect(t, ln, "127.0.0.1")
	accept(t, ln)
	c := server(client)
	child(t, func(cmd *exec.Cmd) {
		cmd.Dir = "/"
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		cmd.Env = append(os.Environ(), "CONNS_TEST_ROLE=look",
			"CONNS_TEST_LOCAL="+c.Local.String(), "CONNS_TEST_REMOTE="+c.Remote.String())
	})
}

func lookUnprivileged(local, remote string) error {
	d, err := Open()
	if err != nil {
		return err
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	want := Conn{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
	open, err := d.Dump(ctx, Query{Ports: []uint16{want.Local.Port()}, States: Set(Established), Info: true})
	if err != nil || len(open) != 1 || open[0].Info == nil || open[0].Inode == 0 {
		return fmt.Errorf("dump: %+v, %v", open, err)
	}
	found, ok, err := d.Lookup(ctx, want)
	if err != nil || !ok || found.Cookie != open[0].Cookie || found.Info == nil {
		return fmt.Errorf("lookup: %+v, %v, %v; want cookie %d", found, ok, err, open[0].Cookie)
	}
	if _, err := Sockets(os.Getppid()); !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("sockets of root's process: %v, want a permission error", err)
	}
	if _, err := d.Count(ctx, Question{PIDs: []int{os.Getppid()}}); !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("count of root's connections: %v, want a permission error", err)
	}
	if owners, err := Owners(ctx, open[0].Inode); err != nil || len(owners) != 0 {
		return fmt.Errorf("owners: %v, %v; want none", owners, err)
	}
	if unix.Geteuid() == 0 {
		return errors.New("still root")
	}
	fmt.Println("running")
	return nil
}
