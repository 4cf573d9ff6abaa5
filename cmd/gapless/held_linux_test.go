package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/handoff/leaktest"
	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/control"
	"github.com/gapless-dev/gapless/reload/state"
)

// held is `gapless run` in a process of its own, to which a test does harm.
type held struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	client *control.Client
	addr   string
	ended  chan struct{}
}

// hold runs a daemon until the test ends. prepare, if there is one, changes how the
// holder is started; args go before the daemon's command, which is the daemon of these
// tests, or what stands behind "--".
func hold(t *testing.T, prepare func(*exec.Cmd), args ...string) *held {
	t.Helper()
	h := begin(t, prepare, args...)
	h.addr = h.live(1).Endpoints[0].Addr
	return h
}

// begin is hold for a daemon that may never be live.
func begin(t *testing.T, prepare func(*exec.Cmd), args ...string) *held {
	t.Helper()
	h := &held{t: t, dir: shortDir(t), ended: make(chan struct{})}
	socket := filepath.Join(h.dir, "web.sock")
	all := append([]string{"run", "-n", "web", "-l", "http=127.0.0.1:0", "--control", socket}, args...)
	if !slices.Contains(args, "--") {
		all = append(all, "--", "daemon")
	}
	h.cmd = exec.Command("gapless", all...)
	h.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "NO_COLOR=1")
	log, err := os.Create(filepath.Join(h.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	h.cmd.Stdout, h.cmd.Stderr = log, log
	if prepare != nil {
		prepare(h.cmd)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.end)
	h.client = control.NewClient("web", h.inside(socket))
	go func() { defer close(h.ended); h.cmd.Wait() }()
	return h
}

// shortDir: the path of a socket has little room.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "gapless")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// end is that of the test: what still runs is killed.
func (h *held) end() {
	h.cmd.Process.Signal(syscall.SIGCONT)
	for range 2 {
		h.cmd.Process.Signal(syscall.SIGTERM)
	}
	select {
	case <-h.ended:
	case <-time.After(patience):
		h.t.Error("the holder does not end")
		h.cmd.Process.Kill()
		<-h.ended
	}
	if h.t.Failed() {
		h.t.Logf("log:\n%s", h.log())
	}
}

func (h *held) pid() int { return h.cmd.Process.Pid }

// inside is a path as the holder sees it, which may have file systems of its own.
func (h *held) inside(path string) string { return fmt.Sprintf("/proc/%d/root%s", h.pid(), path) }

func (h *held) log() string {
	b, _ := os.ReadFile(filepath.Join(h.dir, "log"))
	return string(b)
}

// waitUntil looks again until it is so, or the test's patience has come to its end.
func waitUntil(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func (h *held) within() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	h.t.Cleanup(cancel)
	return ctx
}

// status polls until it is as wanted.
func (h *held) status(what string, is func(reload.Status) bool) (s reload.Status) {
	h.t.Helper()
	waitUntil(h.t, what, func() bool {
		var err error
		if s, err = h.client.Status(h.within()); err != nil {
			select {
			case <-h.ended:
				h.t.Fatalf("waiting for %s: the holder has ended: %s\n%s", what, h.cmd.ProcessState, h.log())
			default:
			}
		}
		return err == nil && is(s)
	})
	return s
}

func (h *held) live(number int) reload.Status {
	h.t.Helper()
	return h.status("generation "+strconv.Itoa(number), func(s reload.Status) bool { return s.Live() != nil && s.Live().Number == number })
}

// quiet is when nothing but the live generation runs.
func (h *held) quiet() reload.Status {
	h.t.Helper()
	return h.status("the end of all but live", func(s reload.Status) bool {
		for _, g := range s.Generations {
			if g.Phase.Running() != (g.Phase == state.Live) {
				return false
			}
		}
		return s.Live() != nil
	})
}

func (h *held) reload() (reload.Result, error) {
	return h.client.Reload(h.within(), control.ReloadOptions{Timeout: patience})
}

func (h *held) mustReload() reload.Result {
	h.t.Helper()
	r, err := h.reload()
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// load is clients, each request of which is to be answered; stop tells by whom.
func (h *held) load() (stop func() map[string]int) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	results := make(chan *bench.Result, 1)
	l := bench.Load{Kind: bench.PerRequest, Addr: h.addr, Clients: 2, Think: 5 * time.Millisecond, Timeout: patience, Duration: time.Hour,
		Identify: func(_ http.Header, body []byte) string { return strings.TrimPrefix(string(body), "generation ") }}
	go func() {
		r, err := l.Run(ctx)
		if err != nil {
			h.t.Error(err)
		}
		results <- r
	}()
	stopped := false
	stop = func() map[string]int {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		r := <-results
		if r.OK == 0 || r.OK != r.Sent {
			h.t.Errorf("of %d requests %d were answered: %v %+v", r.Sent, r.OK, r.Failures, r.Listed)
		}
		return r.Generations
	}
	h.t.Cleanup(func() { stop() })
	return stop
}

// files is how many descriptors the holder has open.
func (h *held) files() int { return len(leaktest.OpenFiles(strconv.Itoa(h.pid()))) }

// settledFiles is that once nobody talks to it: what serves a client is closed a
// moment after the answer.
func (h *held) settledFiles() (n int) {
	h.t.Helper()
	same := 0
	waitUntil(h.t, "the same number of open files for a while", func() bool {
		if now := h.files(); now == n {
			same++
		} else {
			n, same = now, 0
		}
		return same > 10
	})
	return n
}

// children of the holder, zombies too.
func (h *held) children() int {
	n := 0
	tasks, _ := filepath.Glob("/proc/" + strconv.Itoa(h.pid()) + "/task/*/children")
	for _, path := range tasks {
		b, _ := os.ReadFile(path)
		n += len(strings.Fields(string(b)))
	}
	return n
}

// leaves room for so many more descriptors in the holder, as ulimit -n does.
func (h *held) leave(free int) {
	h.t.Helper()
	open := leaktest.OpenFiles(strconv.Itoa(h.pid()))
	limit := 0
	for ; free > 0 || len(open) > 0; limit++ {
		if _, taken := open[limit]; taken {
			delete(open, limit)
		} else if free--; free < 0 {
			break // those at higher numbers stay open
		}
	}
	h.limit(uint64(limit))
}

func (h *held) limit(files uint64) {
	h.t.Helper()
	var now unix.Rlimit
	err := unix.Prlimit(h.pid(), unix.RLIMIT_NOFILE, nil, &now)
	now.Cur = min(files, now.Max)
	if err := errors.Join(err, unix.Prlimit(h.pid(), unix.RLIMIT_NOFILE, &now, nil)); err != nil {
		h.t.Fatal(err)
	}
}
