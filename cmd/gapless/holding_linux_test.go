package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/control"
)

// holding is a holder in a process of its own. The test binary is gapless, and the
// daemon, by the name that it is called by.
type holding struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	client *control.Client
	log    *words
	ended  chan struct{}
}

type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// binaries is a directory with gapless and daemon that other users can reach.
func binaries(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gapless")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), copyFile(self, filepath.Join(dir, "gapless")), os.Link(filepath.Join(dir, "gapless"), filepath.Join(dir, "daemon")))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// startHolding starts a holder called web, with sockets from fd 3 on. DIR/ in its arguments is
// the directory of the binaries.
func startHolding(t *testing.T, dir string, set func(*exec.Cmd), sockets []net.Listener, names string, args ...string) *holding {
	t.Helper()
	h := &holding{t: t, dir: dir, log: &words{}, ended: make(chan struct{}), client: control.NewClient("web", dir+"/run/web.sock")}
	h.cmd = exec.Command(dir+"/gapless", append([]string{"listen-pid", "--", dir + "/gapless", "run", "-n", "web", "--stop-timeout", "5s"}, args...)...)
	for i, arg := range h.cmd.Args {
		h.cmd.Args[i] = strings.Replace(arg, "DIR/", dir+"/", 1)
	}
	h.cmd.Env = append(os.Environ(), "NO_COLOR=1", "GAPLESS_RUNTIME_DIR="+dir+"/run", "GORACE=atexit_sleep_ms=0")
	if len(sockets) > 0 {
		h.cmd.Env = append(h.cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(sockets)))
	}
	if names != "" {
		h.cmd.Env = append(h.cmd.Env, "LISTEN_FDNAMES="+names)
	}
	for _, l := range sockets {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h.cmd.ExtraFiles = append(h.cmd.ExtraFiles, f)
	}
	h.cmd.Stdout, h.cmd.Stderr = h.log, h.log
	if set != nil {
		set(h.cmd)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		h.cmd.Wait()
		close(h.ended)
	}()
	t.Cleanup(func() {
		h.cmd.Process.Kill()
		<-h.ended
		if t.Failed() {
			t.Logf("the holder's log:\n%s", h.log)
		}
	})
	return h
}

// live waits for a generation to be live.
func (h *holding) live(number int) reload.Status {
	h.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		s, err := h.client.Status(ctx)
		cancel()
		if err == nil && s.Live() != nil && s.Live().Number == number {
			return s
		}
		select {
		case <-h.ended:
			h.t.Fatalf("the holder has ended: %v", h.cmd.ProcessState)
		default:
		}
	}
	h.t.Fatalf("generation %d never was live", number)
	return reload.Status{}
}

func (h *holding) reload() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := h.client.Reload(ctx, control.ReloadOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

// end sends a signal and waits.
func (h *holding) end(sig os.Signal) int {
	h.t.Helper()
	h.cmd.Process.Signal(sig)
	select {
	case <-h.ended:
	case <-time.After(patience):
		h.t.Fatal("the holder does not end")
	}
	return h.cmd.ProcessState.ExitCode()
}

// said waits until the holder, or its daemon, has said it.
func (h *holding) said(what string) {
	h.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(h.log.String(), what) {
			return
		}
	}
	h.t.Fatalf("it never said %q", what)
}

// untilQueued: a client waits, and nobody is live.
func (h *holding) untilQueued() {
	h.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		s, err := h.client.Status(h.t.Context())
		if err == nil && s.Live() == nil && len(s.Queues) > 0 && s.Queues[0].Queue > 0 {
			if s.Refusing {
				h.t.Error("it refuses clients that are the manager's")
			}
			return
		}
	}
	h.t.Fatal("nobody waits")
}

// untilEnded: a zombie has closed what it had, if it has no other threads any more.
func untilEnded(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil || len(threads) < 2 && bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')'):], []byte(") Z")) {
			return
		}
	}
	t.Fatalf("process %d does not end", pid)
}
