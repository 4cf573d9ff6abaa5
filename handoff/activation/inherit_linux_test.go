package activation

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inChild runs role in a process with the files from 3 on and the variables.
func inChild(t *testing.T, role string, files []*os.File, env ...string) childReport {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(append(os.Environ(), roleEnv+"=shim", "GAPLESS_TEST_NEXT="+role, "GORACE=atexit_sleep_ms=0"), env...)
	cmd.ExtraFiles = files
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, &stderr)
	}
	var r childReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	if len(r.Variables) > 0 || strings.Contains(r.Grandchild, "LISTEN_") {
		t.Errorf("variables are left: %q", r.Variables)
	}
	return r
}

// tcpFile is a listening socket, and its address.
func tcpFile(t *testing.T) (*os.File, string) {
	t.Helper()
	ln, err := listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, ln.Addr().String()
}

func TestInherit(t *testing.T) {
	web, webAddr := tcpFile(t)
	admin, adminAddr := tcpFile(t)
	files := []*os.File{web, admin}
	both := []string{webAddr, adminAddr}
	tests := []struct {
		name  string
		env   string
		names []string
		addrs []string
	}{
		{"named", "LISTEN_PID=self LISTEN_PIDFDID=self LISTEN_FDS=2 LISTEN_FDNAMES=http:admin", []string{"http", "admin"}, both},
		{"unnamed", "LISTEN_PID=self LISTEN_FDS=2", []string{"unknown", "unknown"}, both},
		{"one of two", "LISTEN_PID=self LISTEN_FDS=1 LISTEN_FDNAMES=http", []string{"http"}, both[:1]},
		{"another's", "LISTEN_PID=1 LISTEN_FDS=2 LISTEN_FDNAMES=http:admin", []string{}, nil},
		{"another's with our pid", "LISTEN_PID=self LISTEN_PIDFDID=1 LISTEN_FDS=2", []string{}, nil},
		{"none", "", []string{}, nil},
	}
	if _, ok := pidfdID(); !ok {
		t.Fatal("this kernel has no pidfs: the pidfd cases would mean nothing")
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := inChild(t, "inherit", files, strings.Fields(tt.env)...)
			if r.Err != "" || !reflect.DeepEqual(r.Names, tt.names) || !reflect.DeepEqual(r.Addrs, tt.addrs) {
				t.Errorf("got %q %q, error %q", r.Names, r.Addrs, r.Err)
			}
			if r.Again != "[] <nil>" {
				t.Errorf("a second Inherit gave %s", r.Again)
			}
			// What is not ours is left as it was.
			if want := len(files) - len(tt.addrs); len(r.Inheritable) != want || len(r.Listening) != want {
				t.Errorf("inheritable %q, listening %d; want %d of each", r.Inheritable, r.Listening, want)
			}
		})
	}
}

func TestInheritRejects(t *testing.T) {
	tcp, _ := tcpFile(t)
	plain, err := os.Create(filepath.Join(t.TempDir(), "plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	udp := socketFile(t, unix.SOCK_DGRAM)
	unbound := socketFile(t, unix.SOCK_STREAM)
	tests := []struct {
		name  string
		files []*os.File
		env   string
		want  string
	}{
		{"plain file", []*os.File{tcp, plain}, "LISTEN_FDS=2 LISTEN_FDNAMES=http:data", "fd 4 (data): not a socket"},
		{"datagram socket", []*os.File{udp, tcp}, "LISTEN_FDS=2 LISTEN_FDNAMES=dns:http", "fd 3 (dns): not a listening socket"},
		{"stream socket that does not listen", []*os.File{unbound}, "LISTEN_FDS=1", "fd 3 (unknown): not a listening socket"},
		{"more than there are", []*os.File{tcp}, "LISTEN_FDS=90", "bad file descriptor"},
		{"far more than there are", []*os.File{tcp}, "LISTEN_FDS=2000000000", "bad file descriptor"},
		{"names", []*os.File{tcp, tcp}, "LISTEN_FDS=2 LISTEN_FDNAMES=http", "1 names for 2 files"},
		{"not a number", []*os.File{}, "LISTEN_FDS=two", "LISTEN_FDS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := inChild(t, "inherit", tt.files, append(strings.Fields(tt.env), "LISTEN_PID=self")...)
			if !strings.HasPrefix(r.Err, "can't inherit listeners: ") || !strings.Contains(r.Err, tt.want) {
				t.Errorf("error %q, want %q", r.Err, tt.want)
			}
			if len(r.Inheritable) > 0 || len(r.Listening) > 0 {
				t.Errorf("left open: inheritable %q, listening %d", r.Inheritable, r.Listening)
			}
		})
	}
}

func socketFile(t *testing.T, kind int) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { f.Close() })
	return f
}

func TestInheritLeavesUnixPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := inChild(t, "inherit", []*os.File{f}, "LISTEN_PID=self", "LISTEN_FDS=1")
	if r.Err != "" || len(r.Addrs) != 1 || r.Addrs[0] != path {
		t.Errorf("got %q, error %q", r.Addrs, r.Err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("after the child has closed its listener: %v", err)
	}
}

func TestListenTakesTheOnlyOne(t *testing.T) {
	f, addr := tcpFile(t)
	for _, name := range []string{"http", "something.socket"} {
		r := inChild(t, "listen:http", []*os.File{f}, "LISTEN_PID=self", "LISTEN_FDS=1", "LISTEN_FDNAMES="+name)
		if r.Err != "" || len(r.Addrs) != 2 || r.Addrs[0] != addr || r.Addrs[1] == addr {
			t.Errorf("named %s: got %q, error %q", name, r.Addrs, r.Err)
		}
	}
}

func TestListenRefusesToChoose(t *testing.T) {
	a, _ := tcpFile(t)
	b, _ := tcpFile(t)
	r := inChild(t, "listen:http", []*os.File{a, b}, "LISTEN_PID=self", "LISTEN_FDS=2", "LISTEN_FDNAMES=http:admin")
	if !strings.Contains(r.Err, "2 are inherited (http, admin), call Inherit") {
		t.Errorf("error %q", r.Err)
	}
	if len(r.Listening) > 0 {
		t.Errorf("still listening: %d", r.Listening)
	}
}

func TestListenPlainly(t *testing.T) {
	r := inChild(t, "listen:http", nil)
	if r.Err != "" || len(r.Addrs) != 2 {
		t.Errorf("got %q, error %q", r.Addrs, r.Err)
	}
	ln, err := listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if p, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || p != unix.IPPROTO_TCP {
			t.Errorf("protocol %d, %v; not plain TCP", p, err)
		}
	})
}

// In this process, where the listeners need not have come from outside.
func TestInheritedByName(t *testing.T) {
	in := &Inherited{}
	defer in.Close()
	addrs := map[string]bool{}
	for _, name := range []string{"http", "admin", "http", "spare"} {
		ln, err := listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs[ln.Addr().String()] = true
		in.listeners = append(in.listeners, inherited{name, ln})
	}
	for _, name := range []string{"http", "http", "admin"} {
		ln, err := in.Listen(name, "tcp", "127.0.0.1:0")
		if err != nil || !addrs[ln.Addr().String()] {
			t.Fatalf("%s: not inherited (%v)", name, err)
		}
		delete(addrs, ln.Addr().String())
		defer ln.Close()
	}
	if _, ok := in.Listener("http"); ok {
		t.Error("a third http")
	}
	ln, err := in.Listen("http", "tcp", "127.0.0.1:0")
	if err != nil || addrs[ln.Addr().String()] {
		t.Fatalf("not a plain listener: %v", err)
	}
	defer ln.Close()
	if _, err := in.Listen("http", "tcp", ln.Addr().String()); err == nil || !strings.Contains(err.Error(), "there are: spare") {
		t.Errorf("a taken address: %v", err)
	}
	if got := in.Names(); !reflect.DeepEqual(got, []string{"spare"}) {
		t.Errorf("left: %q", got)
	}
}

// The bare descriptors may be of any kind, and are the caller's.
func TestFiles(t *testing.T) {
	web, _ := tcpFile(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, tt := range []struct {
		env   string
		names []string
		fails bool
	}{
		{"LISTEN_PID=self LISTEN_PIDFDID=self LISTEN_FDS=2 LISTEN_FDNAMES=http:x", []string{"3http", "4x"}, false},
		{"LISTEN_PID=self LISTEN_FDS=2", []string{"3", "4"}, false},
		{"LISTEN_PID=1 LISTEN_FDS=2", nil, false},
		{"LISTEN_PID=self LISTEN_FDS=2 LISTEN_FDNAMES=http", nil, true},
		{"LISTEN_PID=self LISTEN_FDS=none", nil, true},
	} {
		r := inChild(t, "files", []*os.File{web, null}, strings.Fields(tt.env)...)
		if !reflect.DeepEqual(r.Names, tt.names) || (r.Err != "") != tt.fails || r.Again != "[] <nil>" {
			t.Errorf("%s: %q, %q, and again %q", tt.env, r.Names, r.Err, r.Again)
		}
		if len(r.Names) > 0 && len(r.Inheritable) > 0 {
			t.Errorf("%s: a grandchild would get %q", tt.env, r.Inheritable)
		}
	}
}
