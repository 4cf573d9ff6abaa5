package headline

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
)

// keptServer keeps connections, and ends at SIGTERM with all that it has.
type keptServer struct {
	name, path string
	// program is what it needs; command is how it is started, PORT standing for its port.
	program  string
	command  []string
	identify func(http.Header, []byte) string
}

const nodeServer = `
require('http').createServer((question, answer) => setTimeout(() => {
	answer.setHeader('X-Generation', process.env.GAPLESS_GENERATION)
	answer.end('ok\n')
}, 10)).listen(PORT, '127.0.0.1')`

// pythonServer serves a directory of its generation's own.
const pythonServer = `mkdir -p $GAPLESS_GENERATION && echo $GAPLESS_GENERATION >$GAPLESS_GENERATION/index.html &&
exec python3 -m http.server -p HTTP/1.1 -b 127.0.0.1 -d $GAPLESS_GENERATION PORT 2>/dev/null`

func keptServers() []keptServer {
	return []keptServer{
		{name: "Go", path: "/slow", command: []string{built.Daemon, "-style", "careless", "-slow", "10ms", "-listen", "127.0.0.1:PORT"}},
		{name: "Python", path: "/", program: "python3", command: []string{"sh", "-c", pythonServer}, identify: bench.FirstWord},
		{name: "Node", path: "/", program: "node", command: []string{"node", "-e", nodeServer}},
	}
}

// replacer replaces a server.
type replacer interface {
	address() string
	replace(t *testing.T, ctx context.Context) ending
}

func (c *keptTrial) replacer(t *testing.T) replacer {
	t.Helper()
	s, dir, port := c.server, t.TempDir(), strconv.Itoa(freePort(t))
	if s.program != "" {
		need(t, s.program)
	}
	var command []string
	for _, arg := range s.command {
		command = append(command, strings.ReplaceAll(arg, "PORT", port))
	}
	if c.manner.plain() {
		return startPlain(t, dir, "127.0.0.1:"+port, command)
	}
	sub := subject{address: "127.0.0.1:" + port}.with(append(append([]string{"--workdir", dir}, c.manner.flags...), append([]string{"--"}, command...)...)...)
	return &heldServer{at: sub.address, h: sub.hold(t, binaries(t), rig.Options{})}
}

// heldServer is replaced by gapless.
type heldServer struct {
	at string
	h  *rig.Holder
}

func (s *heldServer) address() string { return s.at }

// replace returns when the old one has ended.
func (s *heldServer) replace(t *testing.T, ctx context.Context) ending {
	t.Helper()
	if err := s.h.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	d := untilDetails(t, ctx, s.h, "the old one to be gone", details.alone)
	var e ending
	for _, g := range d.Generations {
		if g.Delivery != "bind" {
			t.Errorf("generation %d got its listener by %q", g.Number, g.Delivery)
		}
		if g.State != "live" && g.Number > e.generation {
			e = ending{generation: g.Number, waited: g.Signalled.Sub(g.Settled), signalled: g.Signalled, by: g.Ended}
		}
	}
	return e
}

// plainServer is stopped and started again.
type plainServer struct {
	at, dir    string
	command    []string
	generation int
	cmd        *exec.Cmd
}

func startPlain(t *testing.T, dir, address string, command []string) *plainServer {
	t.Helper()
	s := &plainServer{at: address, dir: dir, command: command}
	s.start(t, t.Context())
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *plainServer) address() string { return s.at }

func (s *plainServer) replace(t *testing.T, ctx context.Context) ending {
	t.Helper()
	e := ending{generation: s.generation, signalled: time.Now()}
	s.stop(t)
	s.start(t, ctx)
	e.by = time.Now()
	return e
}

// start returns when it serves.
func (s *plainServer) start(t *testing.T, ctx context.Context) {
	t.Helper()
	s.generation++
	s.cmd = exec.Command(s.command[0], s.command[1:]...)
	s.cmd.Dir, s.cmd.Env = s.dir, append(os.Environ(), fmt.Sprint("GAPLESS_GENERATION=", s.generation))
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	one := bench.Load{Kind: bench.PerRequest, Addr: s.at, Clients: 1, Max: 1}
	for deadline := time.Now().Add(20 * time.Second); ; {
		r, err := one.Run(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if r.OK == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not serve: %v", r.Listed)
		}
		pass(ctx, 10*time.Millisecond)
	}
}

// stop returns when it has ended.
func (s *plainServer) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	impatient := time.AfterFunc(20*time.Second, func() { s.cmd.Process.Kill() })
	defer impatient.Stop()
	s.cmd.Wait() // how it ended does not matter
}
