package reload

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// binds is the configuration of a binder at what spec says, or nowhere if that is "".
// Without delivery "bind" it would be offered listeners too, and never take them.
func binds(t *testing.T, spec string, steps ...string) Config {
	t.Helper()
	cfg := config(t)
	cfg.Command = append([]string{os.Args[0], "binder"}, steps...)
	cfg.Specs = nil
	if spec != "" {
		s, err := handoff.ParseSpec(spec)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Specs = []handoff.Spec{s}
	}
	cfg.Relay = splice
	return cfg
}

// splice relays as the command's worker does.
func splice(ctx context.Context, to string, clients []handoff.File) error {
	for _, file := range clients {
		f := os.NewFile(uintptr(file.FD), file.Name)
		from, err := net.FileConn(f)
		f.Close()
		if err != nil {
			return err
		}
		defer from.Close()
		onto, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
		if err != nil {
			return err
		}
		defer onto.Close()
		from.SetDeadline(time.Now().Add(patience))
		r, err := http.ReadRequest(bufio.NewReader(from))
		if err == io.EOF {
			continue // it did not want anything
		}
		if err != nil {
			return err
		}
		r.Close = true
		if err := r.Write(onto); err != nil {
			return err
		}
		// Not by splice(2), of whose pipes the runtime keeps some open.
		io.Copy(struct{ io.Writer }{from}, struct{ io.Reader }{onto})
	}
	return nil
}

// readyTimeout is for those that never get ready, and no test waits for it in vain.
const readyTimeout = 2 * time.Second

// freePort is one that nobody has at any address, and that neither connections get
// by chance nor other tests: those take a name for it.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		name, err := net.Listen("unix", fmt.Sprintf("@gapless-test-port-%d", port))
		if err != nil {
			continue
		}
		if isFree(port) {
			t.Cleanup(func() { name.Close() })
			return port
		}
		name.Close()
	}
	t.Fatal("no port is free")
	return 0
}

// isFree asks while nothing is forked, which would have the socket for a moment longer.
func isFree(port int) bool {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet6{Port: port}) == nil
}

func at(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }

// ask who serves the address: generation and pid.
func ask(addr string) (generation, pid string, err error) {
	body, err := request("http://" + addr + "/")
	generation, pid, _ = strings.Cut(body, " ")
	return generation, pid, err
}

// servedBy wants each address served by the generation.
func servedBy(t *testing.T, generation string, addrs ...string) {
	t.Helper()
	for _, addr := range addrs {
		if got, _, err := ask(addr); got != generation || err != nil {
			t.Errorf("%s is served by %q, %v; want %s", addr, got, err, generation)
		}
	}
}

// nobodyAt wants nobody at the address.
func nobodyAt(t *testing.T, addrs ...string) {
	t.Helper()
	for _, addr := range addrs {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			t.Errorf("somebody listens at %s", addr)
		}
	}
}

// waitingClient has connected, and waits for its answer.
func waitingClient(t *testing.T, addr string) (answer func() string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return func() string {
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		generation, _, _ := strings.Cut(string(b), " ")
		return generation
	}
}

// addrs are those of the service, sorted.
func (f *fixture) addrsNow() []string {
	var all []string
	for _, e := range f.Addrs() {
		all = append(all, e.Addr)
	}
	slices.Sort(all)
	return all
}

// loadAt is load at an address of its own.
func (f *fixture) loadAt(addr string) (stop func() map[string]int) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	seen, done := map[string]int{}, make(chan struct{})
	go func() {
		defer close(done)
		pace := time.NewTicker(5 * time.Millisecond) // to leave some of the processor to others
		defer pace.Stop()
		for ctx.Err() == nil {
			began := time.Now()
			generation, pid, err := ask(addr)
			if err != nil || pid == "" {
				f.t.Errorf("a client failed that came at %s: %q, %v", began.Format("05.000"), generation, err)
			}
			seen[generation]++
			<-pace.C
		}
	}()
	stop = func() map[string]int {
		cancel()
		<-done
		return seen
	}
	f.t.Cleanup(func() { stop() })
	return stop
}

// firstEvent of a kind, of which there must be one.
func (f *fixture) firstEvent(kind string) Event {
	f.t.Helper()
	for _, e := range f.mustEvents() {
		if e.Kind == kind {
			return e
		}
	}
	f.t.Fatalf("%s did not happen", kind)
	return Event{}
}

// fdsAndGoroutines of this process.
func (f *fixture) fdsAndGoroutines() [2]int {
	return [2]int{len(leaktest.OpenFiles("self")), runtime.NumGoroutine()}
}
