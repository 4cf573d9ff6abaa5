package reload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/state"
)

func specs(t *testing.T, texts ...string) []handoff.Spec {
	t.Helper()
	var all []handoff.Spec
	for _, text := range texts {
		spec, err := handoff.ParseSpec(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, spec)
	}
	return all
}

// Each of very many listeners is the generation's own, and has its place.
func TestManyListeners(t *testing.T) {
	t.Parallel()
	const many = 1100
	texts := make([]string, many)
	for i := range texts {
		texts[i] = "127.0.0.1:0"
	}
	cfg := config(t, "notify")
	cfg.Specs, cfg.Ready.Mode = specs(t, texts...), ready.Notify // it accepts from the first only
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.mustReload()
	st := f.until("generation 1 to go", phase(1, state.Gone))
	if st.Relayed != 0 || len(st.Endpoints) != many {
		t.Errorf("%d relayed, %d endpoints", st.Relayed, len(st.Endpoints))
	}
	inodes := map[uint64]bool{}
	for _, number := range []int{1, 2} {
		for _, l := range st.Generation(number).Listeners {
			inodes[l.Inode] = true
		}
	}
	if len(inodes) != 2*many {
		t.Errorf("two generations have %d listeners", len(inodes))
	}
	open, err := conns.Sockets(st.Live().PID)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range st.Live().Listeners {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", st.Live().PID, 3+i))
		if !open[l.Inode] || to != fmt.Sprintf("socket:[%d]", l.Inode) || l.Endpoint != fmt.Sprintf("web-%d", i) {
			t.Fatalf("listener %d is %+v, and fd %d is %s", i, l, 3+i, to)
		}
	}
	if got := f.generation(); got != "2" {
		t.Errorf("answered by %q", got)
	}
}

// Whoever listens beside us, as the kernel lets the same user, may take clients and
// is reported.
func TestForeignListenerIsReported(t *testing.T) {
	t.Parallel()
	f := start(t, config(t))
	f.expected = []string{"listener.foreign"}
	f.until("generation 1", live(1))
	lc := net.ListenConfig{Control: reusePort}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(t.Context(), "tcp", strings.Replace(f.Addrs()[0].Addr, "127.0.0.1", "0.0.0.0", 1)) // a group of its own
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f.mustReload()
	f.until("the report", f.happened("listener.foreign"))
	for line := range strings.Lines(f.log.String()) {
		if kindOf(line) == "listener.foreign" && !strings.Contains(line, fmt.Sprintf("pid %d (", os.Getpid())) {
			t.Errorf("the report is %s", line)
		}
	}
}

func reusePort(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
}

// An address that is taken is an error that names who has it, before anything runs.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	for name, lc := range map[string]net.ListenConfig{"plainly": {}, "with SO_REUSEPORT": {Control: reusePort}} {
		lc.SetMultipathTCP(false)
		ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg := config(t)
		cfg.Specs = specs(t, "127.0.0.1:0", ln.Addr().String())
		s, err := New(t.Context(), cfg)
		if err == nil {
			s.release()
			t.Fatalf("%s: it was taken", name)
		}
		for _, want := range []string{"can't listen on ", ln.Addr().String(), fmt.Sprintf("pid %d", os.Getpid())} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: no %q in: %v", name, want, err)
			}
		}
		ln.Close()
	}
}

func TestDuplicateNames(t *testing.T) {
	t.Parallel()
	for _, texts := range [][]string{{"http=127.0.0.1:0", "http=127.0.0.1:0"}, {"web-1=127.0.0.1:0", "127.0.0.1:0"}} {
		cfg := config(t)
		cfg.Specs = specs(t, texts...)
		s, err := New(t.Context(), cfg)
		if err == nil {
			s.release()
		}
		if err == nil || !strings.Contains(err.Error(), "has the name ") {
			t.Errorf("%q: %v", texts, err)
		}
	}
}

// Where one endpoint can't be steered, those before it go back to what they had.
func TestSteeringIsAllOrNothing(t *testing.T) {
	t.Parallel()
	cfg := config(t, "notify")
	cfg.Specs, cfg.Ready.Mode = specs(t, "a=127.0.0.1:0", "b=127.0.0.1:0"), ready.Notify // it accepts from the first only
	f := start(t, cfg)
	f.until("generation 1", live(1))
	f.ask(t.Context(), func() {
		first, err := f.eps[0].Open()
		if err != nil {
			t.Error(err)
			return
		}
		err = f.direct(&generation{listeners: sockets{{first}, {first}}}) // the second endpoint has it not
		if !errors.Is(err, handoff.ErrNotMember) {
			t.Errorf("steered: %v", err)
		}
		for i, e := range f.eps {
			if now := e.Plan().Live; len(now) != 1 || now[0] != f.runs[1].listeners.at(i)[0] {
				t.Errorf("endpoint %d is steered to %v", i, now)
			}
		}
		if err := f.eps[0].Close(first); err != nil {
			t.Error(err)
		}
	})
	if got := f.generation(); got != "1" {
		t.Errorf("answered by %q", got)
	}
}

func TestNoCommand(t *testing.T) {
	t.Parallel()
	if _, err := New(t.Context(), Config{}); err == nil {
		t.Error("a service without a command")
	}
}

// liveQueue of the live generation's first listener.
func (f *fixture) liveQueue() (waiting, limit int, err error) {
	askErr := f.ask(context.Background(), func() {
		for _, l := range f.eps[0].Plan().Live {
			waiting, limit, err = l.Queue()
		}
	})
	if askErr != nil {
		err = askErr
	}
	return waiting, limit, err
}
