package spawn

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/bind"
)

// bindAndTell is a daemon that binds, says what came of it, and stays.
func bindAndTell() int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		unix.Close(fd)
	}
	fmt.Println(err)
	<-make(chan int)
	return 0
}

// binder runs it; said is its words.
func binder(t *testing.T, change func(*Options)) (p *Process, said *bufio.Reader) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	o := options(t, "/proc/self/exe", "__bind")
	o.Path, o.Stdout, o.Bind = "/proc/self/exe", w, true
	change(&o)
	p = run(t, o)
	w.Close()
	return p, bufio.NewReader(r)
}

func line(t *testing.T, said *bufio.Reader) string {
	t.Helper()
	s, err := said.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

// What the daemon binds is seen and answered, whoever it runs as; the filter costs
// no_new_privs only where it must; and at the end the watch says so.
func TestBind(t *testing.T) {
	if err := bind.Probe(); err != nil {
		t.Skip(err)
	}
	root := os.Geteuid() == 0
	for _, uid := range []int{0, 65534} {
		p, said := binder(t, func(o *Options) {
			if uid != 0 && root {
				o.Credential = &Credential{UID: uid, GID: uid}
			}
		})
		w := p.BindWatch()
		if w == nil {
			t.Fatalf("no watch: %s", p.BindNote())
		}
		defer w.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if c.PID != p.PID() || c.Addr.String() != "127.0.0.1:0" {
			t.Errorf("%s, and its pid is %d", c, p.PID())
		}
		if err := c.Answer(unix.EXDEV); err != nil {
			t.Error(err)
		}
		if got := line(t, said); got != unix.EXDEV.Error() {
			t.Errorf("it got %q", got)
		}
		if (p.BindNote() == "") != root || (statusField(t, p.PID(), "NoNewPrivs") == "0") != root {
			t.Errorf("as root %v: note %q, no_new_privs %s", root, p.BindNote(), statusField(t, p.PID(), "NoNewPrivs"))
		}
		p.Kill()
		<-p.Gone()
		if _, err := w.Next(ctx); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
}

// Nothing that the filter needs stays in the daemon, nor in the shim's report.
func TestBindLeavesNoDescriptor(t *testing.T) {
	if err := bind.Probe(); err != nil {
		t.Skip(err)
	}
	o := options(t, "sleep", "600")
	o.Listeners, o.Bind, o.Report = sockets(t, 2), true, true
	p := run(t, o)
	defer p.BindWatch().Close()
	environ(t, p.PID())
	hasExactly(t, p.PID(), promised(o.Listeners))
	if got := statusField(t, p.PID(), "Seccomp"); got != "2" {
		t.Errorf("Seccomp is %s", got)
	}
	if p.Program() == nil {
		t.Fatal("it was not told what runs")
	}
	p.Program().close()
}

// Without being asked for there is no filter, nor in a check.
func TestNoBind(t *testing.T) {
	p, said := binder(t, func(o *Options) { o.Bind = false })
	if p.BindWatch() != nil || p.BindNote() != "" {
		t.Errorf("a watch, or a note: %q", p.BindNote())
	}
	if got := line(t, said); got != "<nil>" {
		t.Errorf("it got %q", got)
	}
	o := options(t, "true")
	o.Bind = true
	if err := Check(t.Context(), o); err != nil {
		t.Error(err)
	}
}

// A daemon that can't have a filter runs without, and why is told.
func TestBindWithoutAFilter(t *testing.T) {
	if err := bind.Probe(); err != nil {
		t.Skip(err)
	}
	// A holder that is under one itself.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o := options(t, "/proc/self/exe", "__nested")
	o.Path, o.Stdout, o.Stderr, o.Bind = "/proc/self/exe", w, w, true
	p := run(t, o)
	defer p.BindWatch().Close()
	w.Close()
	answered := make(chan error)
	go func() {
		for {
			c, err := p.BindWatch().Next(t.Context())
			if err != nil {
				answered <- err
				return
			}
			c.Continue()
		}
	}()
	var out bytes.Buffer
	out.ReadFrom(r)
	if got := out.String(); !strings.Contains(got, "the kernel takes only one") || !strings.Contains(got, "watch false") || !strings.Contains(got, "<nil>") {
		t.Errorf("%s", got)
	}
	<-p.Gone()
	if err := <-answered; err != io.EOF {
		t.Error(err)
	}
}

// holdNested is a holder under a filter.
func holdNested() int {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	r, w, err := os.Pipe()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	p, err := Start(context.Background(), Options{
		Order: Order{Argv: []string{"/proc/self/exe", "__bind"}, Path: "/proc/self/exe", Bind: true}, Shim: []string{"/proc/self/exe", "__shim"},
		Stdin: null, Stdout: w, Stderr: os.Stderr,
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	said, _ := bufio.NewReader(r).ReadString('\n')
	fmt.Println("watch", p.BindWatch() != nil, p.BindNote(), said)
	p.Kill()
	<-p.Gone()
	return 0
}
