package wan

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestManyDialsAtOnceHoldNoThreads(t *testing.T) {
	const dials = 300
	l := openLink(t, Options{RTT: 200 * time.Millisecond})
	address := serve(t, l.Server(), l.Server().Addr4(), echo)
	before := threads(t)
	var all sync.WaitGroup
	for range dials {
		all.Go(func() {
			conn, err := l.Client().DialContext(withPatience(t), "tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
		})
	}
	all.Wait()
	if after := threads(t); after > before+dials/4 {
		t.Errorf("%d threads after %d dials, %d before", after, dials, before)
	}
}

func TestUDP(t *testing.T) {
	l := openLink(t, Options{})
	var server net.PacketConn
	err := l.Server().Do(func() (err error) {
		server, err = net.ListenPacket("udp", netip.AddrPortFrom(l.Server().Addr6(), 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	conn, err := l.Client().DialContext(withPatience(t), "udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	server.SetDeadline(time.Now().Add(patience))
	got := make([]byte, 10)
	n, from, err := server.ReadFrom(got)
	if err != nil || string(got[:n]) != "hello" || from.String() != conn.LocalAddr().String() {
		t.Errorf("got %q from %v, %v", got[:n], from, err)
	}
}

func TestTheHostIsNotChanged(t *testing.T) {
	names := func() []string {
		names, err := interfaceNames()
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	setting := func() string {
		text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	interfaces, ports, home := names(), setting(), threadNetns(t)
	l := openLink(t, Options{})
	check := func(when string) {
		if got := names(); !slices.Equal(got, interfaces) {
			t.Errorf("%s: interfaces %v, were %v", when, got, interfaces)
		}
		if got := setting(); got != ports {
			t.Errorf("%s: port range %q, was %q", when, got, ports)
		}
		for _, got := range allNetns(t) {
			if got != home {
				t.Errorf("%s: a thread is in %s, not in %s", when, got, home)
			}
		}
	}
	check("open")
	for _, s := range []Side{l.Client(), l.Server()} {
		s.Do(func() error {
			if got := setting(); got != "1024\t65535\n" {
				t.Errorf("inside: port range %q", got)
			}
			if got := names(); !slices.Equal(got, []string{"lo", deviceName}) {
				t.Errorf("inside: interfaces %v", got)
			}
			return nil
		})
	}
	check("after Do")
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	check("closed")
}

func threadNetns(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// allNetns names the namespace of every thread of the process.
func allNetns(t *testing.T) []string {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, task := range tasks {
		name, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net")
		if err == nil { // else the thread has ended
			all = append(all, name)
		}
	}
	return all
}

func TestDoCanBeNestedAndPassesErrors(t *testing.T) {
	l := openLink(t, Options{})
	home, wrong := threadNetns(t), errors.New("wrong")
	err := l.Client().Do(func() error {
		outer := threadNetns(t)
		err := l.Server().Do(func() error {
			if inner := threadNetns(t); inner == outer || inner == home {
				t.Error("both sides are in one namespace")
			}
			return wrong
		})
		if got := threadNetns(t); got != outer {
			t.Errorf("back in %s, want %s", got, outer)
		}
		return err
	})
	if err != wrong {
		t.Errorf("got %v, want %v", err, wrong)
	}
	if got := threadNetns(t); got != home {
		t.Errorf("back in %s, want %s", got, home)
	}
}

func TestLoopbackWorksOnEachSide(t *testing.T) {
	l := openLink(t, Options{})
	for _, ip := range []string{"127.0.0.1", "::1"} {
		transfer(t, dial(t, l.Server(), serve(t, l.Server(), netip.MustParseAddr(ip), echo)), 1000)
	}
	s, err := l.Stats()
	if err != nil || s.ToServer.Packets+s.ToClient.Packets > 20 {
		t.Errorf("stats %+v, %v: loopback traffic is on the wire", s, err)
	}
}

func TestAChildSeesOnlyItsSide(t *testing.T) {
	l := openLink(t, Options{})
	var out bytes.Buffer
	cmd := exec.CommandContext(withPatience(t), os.Args[0])
	cmd.Env = append(os.Environ(), childMark+"=1")
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := l.Server().Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "lo "+deviceName; got != want {
		t.Errorf("the child sees %q, want %q", got, want)
	}
}

func TestNamesAreRefused(t *testing.T) {
	l := openLink(t, Options{})
	for _, address := range []string{"localhost:80", "10.77.0.2", "/run/x.sock", ":80"} {
		conn, err := l.Client().DialContext(t.Context(), "tcp", address)
		if err == nil {
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "not a literal IP address") {
			t.Errorf("%s: got %v, want a refusal to look it up", address, err)
		}
	}
}

func threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

func TestWithoutPrivilegeOpenSaysSo(t *testing.T) {
	if os.Geteuid() != 0 {
		_, err := Open(Options{})
		expectNoPrivilege(t, err)
		return
	}
	// Capabilities belong to the thread: it is thrown away with the goroutine, never unlocked.
	got := make(chan error)
	go func() {
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			got <- err
			return
		}
		l, err := Open(Options{})
		if err == nil {
			l.Close()
		}
		got <- err
	}()
	expectNoPrivilege(t, <-got)
}

func expectNoPrivilege(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, unix.EPERM) || !bytes.Contains([]byte(err.Error()), []byte("CAP_SYS_ADMIN")) {
		t.Errorf("got %v, want EPERM and the capability's name", err)
	}
}
