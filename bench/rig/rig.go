// Package rig drives the gapless command from outside, as a user would, for tests,
// the demo and benchmarks. It builds the binaries into a directory of its own,
// starts a holder with its own runtime directory, and talks to it by the command's
// verbs only.
//
// A [Holder] owns its process; [Holder.End] stops it and waits for it. Whoever runs
// one must end it: a holder outlives the process that started it.
package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Binaries are where [Build] put them.
type Binaries struct {
	Dir, Gapless, Daemon string
}

// Build compiles the command and the test daemon. race builds the command with the
// race detector.
func Build(ctx context.Context, dir string, race bool) (Binaries, error) {
	b := Binaries{Dir: dir, Gapless: filepath.Join(dir, "gapless"), Daemon: filepath.Join(dir, "daemon")}
	const module = "github.com/gapless-dev/gapless/"
	args := []string{"build", "-o", b.Gapless}
	if race {
		args = append(args, "-race")
	}
	for _, args := range [][]string{append(args, module+"cmd/gapless"), {"build", "-o", b.Daemon, module + "bench/daemon"}} {
		if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			return b, fmt.Errorf("can't build %s: %w\n%s", args[len(args)-1], err, out)
		}
	}
	return b, nil
}

// Options for [Binaries.Run].
type Options struct {
	Args []string // of `gapless run`, with the daemon's command
	Name string
	Env  []string // added to ours
	// Start starts the command; its own Start by default. A test in a network
	// namespace puts it there.
	Start func(*exec.Cmd) error
	// Credential to run the holder as.
	Credential *syscall.Credential
}

// Holder is a running `gapless run`.
type Holder struct {
	Name string
	cmd  *exec.Cmd
	bin  Binaries
	env  []string
	cred *syscall.Credential
	log  *log
	done chan struct{}
	err  error
}

// log may be read while the process writes.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Run starts a holder and waits until its first generation is live.
func (b Binaries) Run(ctx context.Context, o Options) (*Holder, error) {
	runtime, err := os.MkdirTemp(b.Dir, "run-")
	if err != nil {
		return nil, fmt.Errorf("can't make a runtime directory: %w", err)
	}
	if o.Credential != nil {
		if err := os.Chown(runtime, int(o.Credential.Uid), int(o.Credential.Gid)); err != nil {
			return nil, fmt.Errorf("can't give the runtime directory away: %w", err)
		}
	}
	h := &Holder{Name: o.Name, bin: b, cred: o.Credential, log: &log{}, done: make(chan struct{})}
	h.env = append(append(os.Environ(), "GAPLESS_RUNTIME_DIR="+runtime), o.Env...)
	h.cmd = exec.Command(b.Gapless, append([]string{"run", "-n", o.Name}, o.Args...)...)
	h.cmd.Env, h.cmd.Stdout, h.cmd.Stderr = h.env, h.log, h.log
	h.cmd.SysProcAttr = attributes(o.Credential)
	begin := (*exec.Cmd).Start
	if o.Start != nil {
		begin = func(c *exec.Cmd) error { return o.Start(c) }
	}
	if err := begin(h.cmd); err != nil {
		return nil, fmt.Errorf("can't start gapless: %w", err)
	}
	go h.wait()
	return h, h.untilLive(ctx)
}

func (h *Holder) wait() {
	h.err = h.cmd.Wait()
	close(h.done)
}

func (h *Holder) untilLive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if st, err := h.Status(ctx); err == nil && st.Live() != nil {
			return nil
		}
		select {
		case <-h.done:
			return fmt.Errorf("gapless ended: %v\n%s", h.err, h.log)
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("no generation is live\n%s", h.log), h.End())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// PID of the holder.
func (h *Holder) PID() int { return h.cmd.Process.Pid }

// Log is what the holder and its daemons said.
func (h *Holder) Log() string { return h.log.String() }

// Gapless runs a verb and returns what it printed.
func (h *Holder) Gapless(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, h.bin.Gapless, args...)
	cmd.Env, cmd.SysProcAttr = h.env, attributes(h.cred)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("gapless %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// Reload replaces the daemon.
func (h *Holder) Reload(ctx context.Context) error {
	_, err := h.Gapless(ctx, "reload", h.Name)
	return err
}

// Status is what `gapless status -o json` says, as far as it is needed here: the
// field names are part of the command's contract.
type Status struct {
	Endpoints []struct {
		Name    string `json:"name"`
		Address string `json:"address"`
	} `json:"endpoints"`
	Generations []Generation `json:"generations"`
	Relayed     int          `json:"relayed"`
}

// Generation is a row of it.
type Generation struct {
	Number int    `json:"generation"`
	State  string `json:"state"`
	PID    int    `json:"pid"`
	Exit   string `json:"exit"`
	// Delivery is how it got its listeners: bind, listen-fds.
	Delivery string    `json:"delivery"`
	Ended    time.Time `json:"ended"`
}

// Live is the generation that new connections go to.
func (s Status) Live() *Generation {
	for i := range s.Generations {
		if s.Generations[i].State == "live" {
			return &s.Generations[i]
		}
	}
	return nil
}

// Addr of an endpoint by its name.
func (s Status) Addr(name string) string {
	for _, e := range s.Endpoints {
		if e.Name == name {
			return e.Address
		}
	}
	return ""
}

// Status asks the holder.
func (h *Holder) Status(ctx context.Context) (Status, error) {
	out, err := h.Gapless(ctx, "status", h.Name, "-o", "json")
	if err != nil {
		return Status{}, err
	}
	var st Status
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&st); err != nil && !errors.Is(err, io.EOF) {
		return st, fmt.Errorf("can't read the status: %w", err)
	}
	return st, nil
}

// endTimeout is more than a holder takes with its default stop timeout.
const endTimeout = 15 * time.Second

// End stops the holder and waits for it.
func (h *Holder) End() error {
	h.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-h.done:
		return nil
	case <-time.After(endTimeout):
		h.cmd.Process.Kill()
		<-h.done
		return fmt.Errorf("gapless did not end within %s of SIGTERM", endTimeout)
	}
}

func attributes(c *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: c}
}
