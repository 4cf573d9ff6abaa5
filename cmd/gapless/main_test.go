package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/control"
	"github.com/gapless-dev/gapless/reload/notify"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// TestMain: the test binary is gapless, what gapless starts itself as, and the
// daemon that the scripts run.
func TestMain(m *testing.M) {
	hidden(os.Args)
	testscript.Main(m, map[string]func(){
		"gapless":   main,
		"daemon":    func() { os.Exit(daemon(os.Args[1:])) },
		"ask":       func() { os.Exit(fetch(os.Args[1])) },
		"container": func() { os.Exit(inContainer(os.Args[1:])) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Condition:           condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": code, "live": live, "get": get, "stay": stay, "leave": leave, "until": until, "signal": sendSignal, "happened": happened, "occupy": occupy, "stuffed": stuffed, "gone": gone, "chown": chown, "waiting": waiting, "hears": hears,
		},
	})
}

func setup(e *testscript.Env) error {
	e.Setenv("GAPLESS_RUNTIME_DIR", e.WorkDir+"/run")
	e.Setenv("NO_COLOR", "1")
	e.Values[stayed{}] = &[]*http.Transport{}
	e.Setenv("GORACE", "atexit_sleep_ms=0") // daemons under the race detector end at once too
	e.Setenv("SELF", strconv.Itoa(os.Getpid()))
	// Other users are to find the scripts' files, and gapless in the first of PATH.
	bin, _, _ := strings.Cut(e.Getenv("PATH"), string(os.PathListSeparator))
	return errors.Join(os.Chmod(filepath.Dir(e.WorkDir), 0o755), os.Chmod(e.WorkDir, 0o755), os.Chmod(filepath.Dir(bin), 0o755))
}

func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "privileged-ports":
		b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
		return err == nil && strings.TrimSpace(string(b)) == "1024", nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

// patience is for what must happen, soon.
const patience = 30 * time.Second

// poll looks again until ok, and fails the script when its time is over.
func poll(ts *testscript.TestScript, what string, ok func() bool) {
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("never came: %s", what)
		}
	}
}

// code N COMMAND...: the command ends with N.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var ended interface{ ExitCode() int }
	if errors.As(err, &ended) {
		got = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("it ended with %d, not %s", got, args[0])
	}
}

func statusOf(ts *testscript.TestScript, name string) (reload.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return clientOf(ts, name).Status(ctx)
}

func clientOf(ts *testscript.TestScript, name string) *control.Client {
	return control.NewClient(name, ts.Getenv("GAPLESS_RUNTIME_DIR")+"/"+name+control.Suffix)
}

// live NAME [GENERATION]: it is there; sets $ADDR, $LIVE and $HOLDER.
func live(ts *testscript.TestScript, _ bool, args []string) {
	poll(ts, "live "+strings.Join(args, " "), func() bool {
		s, err := statusOf(ts, args[0])
		if err != nil || s.Live() == nil || len(args) > 1 && strconv.Itoa(s.Live().Number) != args[1] {
			return false
		}
		ts.Setenv("ADDR", s.Endpoints[0].Addr)
		ts.Setenv("LIVE", strconv.Itoa(s.Live().PID))
		ts.Setenv("HOLDER", strconv.Itoa(s.HolderPID))
		return true
	})
}

// gone NAME GENERATION: that generation has ended.
func gone(ts *testscript.TestScript, _ bool, args []string) {
	number, err := strconv.Atoi(args[1])
	ts.Check(err)
	poll(ts, "gone "+strings.Join(args, " "), func() bool {
		s, err := statusOf(ts, args[0])
		ts.Check(err)
		g := s.Generation(number)
		return g == nil || !g.Phase.Running()
	})
}

// happened NAME TEXT: an event of the service says it.
func happened(ts *testscript.TestScript, _ bool, args []string) {
	client := clientOf(ts, args[0])
	poll(ts, "happened "+strings.Join(args, " "), func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for e, err := range client.Events(ctx, false) {
			ts.Check(err)
			if strings.Contains(e.Text, args[1]) {
				return true
			}
		}
		return false
	})
}

// get ADDR TEXT: what is answered there is TEXT; ! get ADDR: it is refused.
func get(ts *testscript.TestScript, neg bool, args []string) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + args[0])
	if neg {
		if !errors.Is(err, syscall.ECONNREFUSED) {
			ts.Fatalf("it was not refused: %v", err)
		}
		return
	}
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if string(body) != args[1] {
		ts.Fatalf("got %q, want %q", body, args[1])
	}
}

// stayed is what a script's clients that stay are kept under.
type stayed struct{}

// stay ADDR: a client has been answered there and keeps its connection, until leave.
func stay(ts *testscript.TestScript, _ bool, args []string) {
	transport := &http.Transport{}
	client := http.Client{Timeout: patience, Transport: transport}
	resp, err := client.Get("http://" + args[0])
	ts.Check(err)
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	ts.Check(err)
	all := ts.Value(stayed{}).(*[]*http.Transport)
	*all = append(*all, transport)
	ts.Defer(transport.CloseIdleConnections)
}

// leave: all of those go.
func leave(ts *testscript.TestScript, _ bool, _ []string) {
	for _, t := range *ts.Value(stayed{}).(*[]*http.Transport) {
		t.CloseIdleConnections()
	}
}

// waiting NAME N: so many connections wait for whoever serves next.
func waiting(ts *testscript.TestScript, _ bool, args []string) {
	poll(ts, "waiting "+strings.Join(args, " "), func() bool {
		s, err := statusOf(ts, args[0])
		ts.Check(err)
		return len(s.Queues) > 0 && strconv.Itoa(s.Queues[0].Queue) == args[1]
	})
}

// until FILE TEXT: the file holds it.
func until(ts *testscript.TestScript, _ bool, args []string) {
	poll(ts, args[1], func() bool {
		b, _ := os.ReadFile(ts.MkAbs(args[0]))
		return strings.Contains(string(b), args[1])
	})
}

// stuffed PATH makes a fifo that is full and that nobody reads.
func stuffed(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	ts.Check(syscall.Mkfifo(path, 0o600))
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	ts.Check(err)
	ts.Defer(func() { syscall.Close(fd) })
	for _, n := range []int{4096, 1} {
		for err = nil; err == nil; {
			_, err = syscall.Write(fd, make([]byte, n))
		}
	}
	if err != syscall.EAGAIN {
		ts.Fatalf("can't fill %s: %v", path, err)
	}
}

// hears FILE: somebody who wants to know how it is, at $NOTIFY_SOCKET, writes down
// each message as a line.
func hears(ts *testscript.TestScript, _ bool, args []string) {
	socket, err := notify.Listen()
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		socket.Run(func(m notify.Message) { fmt.Fprintln(f, m.Fields) })
	}()
	ts.Defer(func() { socket.Close(); <-done; f.Close() })
	ts.Setenv("NOTIFY_SOCKET", socket.Address())
}

// signal PID NAME [TIMES].
func sendSignal(ts *testscript.TestScript, _ bool, args []string) {
	pid, err := strconv.Atoi(args[0])
	ts.Check(err)
	sig, err := spawn.ParseSignal(args[1])
	ts.Check(err)
	times := 1
	if len(args) > 2 {
		times, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	for range times {
		ts.Check(syscall.Kill(pid, sig))
	}
}

// occupy: somebody else, this process, listens at $TAKEN.
func occupy(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv("TAKEN", l.Addr().String())
}

// chown UID FILE...
func chown(ts *testscript.TestScript, _ bool, args []string) {
	uid, err := strconv.Atoi(args[0])
	ts.Check(err)
	for _, f := range args[1:] {
		ts.Check(os.Lchown(ts.MkAbs(f), uid, uid))
	}
}
