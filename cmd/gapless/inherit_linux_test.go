package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload/control"
)

// listening is what a service manager does.
func listening(t *testing.T, network, at string) net.Listener {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	free, err := config.Listen(t.Context(), network, at)
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	l, err := config.Listen(t.Context(), network, free.Addr().String()) // by number, as managers bind
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// asking is many clients, one connection a request, and how they fared.
type asking struct {
	stop   context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	good   int
	faults []error
}

func startAsking(addr string) *asking {
	ctx, cancel := context.WithCancel(context.Background())
	a := &asking{stop: cancel}
	for range 4 {
		a.wg.Go(func() {
			for ctx.Err() == nil {
				_, err := answerAt(addr)
				a.mu.Lock()
				if err != nil {
					a.faults = append(a.faults, err)
				} else {
					a.good++
				}
				a.mu.Unlock()
			}
		})
	}
	return a
}

func answerAt(addr string) (string, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + addr)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}

func (a *asking) end(t *testing.T) {
	t.Helper()
	a.stop()
	a.wg.Wait()
	t.Logf("%d requests", a.good)
	if len(a.faults) > 0 || a.good == 0 {
		t.Errorf("%d of %d requests failed, the first: %v", len(a.faults), a.good+len(a.faults), slices.Concat(a.faults, []error{nil})[0])
	}
}

// Nobody is refused or lost through 20 reloads, and through an end and a new start
// under the same manager.
func TestTakenOverSockets(t *testing.T) {
	dir := binaries(t)
	web, admin := listening(t, "tcp", "[::]:0"), listening(t, "tcp", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(web.Addr().String())
	both := []net.Listener{web, admin}
	h := startHolding(t, dir, nil, both, "http:admin", "--", "DIR/daemon", "env")
	s := h.live(1)
	for i, e := range s.Endpoints {
		if name := []string{"http", "admin"}[i]; e.Name != name || e.Addr != both[i].Addr().String() || !e.Inherited || e.Steering != "cbpf" {
			t.Errorf("endpoint %d is %+v", i, e)
		}
	}
	if !strings.Contains(h.log.String(), "env LISTEN_FDNAMES=http:admin\n") {
		t.Error("the daemon does not get the names")
	}
	load := startAsking("127.0.0.1:" + port)
	load6 := startAsking("[::1]:" + port)
	for range 20 {
		h.reload()
	}
	h.live(21)
	if code := h.end(syscall.SIGTERM); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	again := startHolding(t, dir, nil, both, "http:admin", "--", "DIR/daemon")
	again.live(1)
	again.reload()
	load.end(t)
	load6.end(t)
	if got, err := answerAt(admin.Addr().String()); err != nil || got != "generation 2" {
		t.Errorf("admin answers %q, %v", got, err)
	}
	again.end(syscall.SIGQUIT)
}

// Nobody is refused when the holder and the daemon are killed.
func TestTakenOverSocketOfAKilledHolder(t *testing.T) {
	for reloads := range 2 {
		dir := binaries(t)
		web := listening(t, "tcp", "127.0.0.1:0")
		h := startHolding(t, dir, nil, []net.Listener{web}, "", "--", "DIR/daemon")
		h.live(1)
		if reloads > 0 {
			h.reload()
		}
		daemon := h.live(1 + reloads).Live().PID
		h.end(syscall.SIGKILL)
		if got, err := answerAt(web.Addr().String()); err != nil || got != fmt.Sprintf("generation %d", 1+reloads) {
			t.Errorf("without its holder the daemon answers %q, %v", got, err)
		}
		if err := syscall.Kill(daemon, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		untilEnded(t, daemon)
		waiting := make(chan error, 1)
		go func() {
			_, err := answerAt(web.Addr().String())
			waiting <- err
		}()
		again := startHolding(t, dir, nil, []net.Listener{web}, "", "--", "DIR/daemon")
		again.live(1)
		if err := <-waiting; err != nil {
			t.Errorf("who came while nobody was there: %v", err)
		}
		again.end(syscall.SIGTERM)
	}
}

// Who comes once the daemon was told to stop for good is the next holder's, although
// the daemon would still accept.
func TestTakenOverSocketIsGivenBackFirst(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGQUIT} {
		dir := binaries(t)
		if err := os.WriteFile(dir+"/mode", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		web := listening(t, "tcp", "127.0.0.1:0")
		h := startHolding(t, dir, nil, []net.Listener{web}, "", "--drain-timeout", "1s", "--", "DIR/daemon", "from", "DIR/mode")
		h.live(1)
		if err := os.WriteFile(dir+"/mode", []byte("terms"), 0o644); err != nil {
			t.Fatal(err)
		}
		h.reload()
		h.said("generation 1 is gone")
		h.cmd.Process.Signal(sig)
		h.said("generation 2 was told to stop")
		c, err := net.DialTimeout("tcp", web.Addr().String(), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		select {
		case <-h.ended:
			t.Errorf("%s: who came then had to wait for the end even to connect", sig)
		default:
		}
		<-h.ended
		again := startHolding(t, dir, nil, []net.Listener{web}, "", "--", "DIR/daemon")
		fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
		c.SetDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(got), "generation 1") {
			t.Errorf("%s: who came then was answered %q, %v", sig, got, err)
		}
		again.live(1)
		again.end(syscall.SIGTERM)
	}
}

// A stopped service's clients wait in the manager's socket, however long, and are
// those of the next start.
func TestTakenOverSocketWhileStopped(t *testing.T) {
	dir := binaries(t)
	web := listening(t, "tcp", "127.0.0.1:0")
	h := startHolding(t, dir, nil, []net.Listener{web}, "", "--hold-timeout", "1ms", "--", "DIR/daemon")
	h.live(1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for number := 2; number < 5; number++ {
		h.reload()
		if err := h.client.Stop(ctx, 0); err != nil {
			t.Fatal(err)
		}
		waiting := make(chan error, 1)
		go func() {
			_, err := answerAt(web.Addr().String())
			waiting <- err
		}()
		h.untilQueued()
		if _, err := h.client.Start(ctx, 0); err != nil {
			t.Fatal(err)
		}
		if err := <-waiting; err != nil {
			t.Errorf("who waited while it was stopped: %v", err)
		}
	}
	h.end(syscall.SIGTERM)
}

// Two at one address can't be told apart.
func TestTakenOverSocketsAtOneAddress(t *testing.T) {
	web := listening(t, "tcp", "127.0.0.1:0")
	h := startHolding(t, binaries(t), nil, []net.Listener{web, web}, "a:b", "--", "DIR/daemon")
	<-h.ended
	if h.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(h.log.String(), "gapless: can't take over fd 4 (b): fd 3 (a) listens on "+web.Addr().String()) {
		t.Errorf("it ended with %v", h.cmd.ProcessState)
	}
}

// A socket of root's, and a holder that is not: it is shared, said so, and serves.
func TestTakenOverSocketOfRoots(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user than the socket's")
	}
	dir := binaries(t)
	if err := errors.Join(os.Mkdir(dir+"/run", 0o700), os.Chown(dir+"/run", 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	web := listening(t, "tcp", "127.0.0.1:0")
	asOther := func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	}
	h := startHolding(t, dir, asOther, []net.Listener{web}, "", "--", "DIR/daemon")
	if s := h.live(1); s.Endpoints[0].Steering != "shared" {
		t.Errorf("steering is %s", s.Endpoints[0].Steering)
	}
	if !strings.Contains(h.log.String(), "uid 0 made it, and this process is uid 12345; run gapless as uid 0, and the daemon as another with --user") {
		t.Error("it does not say why")
	}
	h.reload()
	h.live(2)
	status := exec.Command(dir+"/gapless", "status", "--control", dir+"/run/web.sock")
	if out, err := status.Output(); err != nil || !strings.HasSuffix(string(out), "web: its generations share one socket at "+web.Addr().String()+"\n") {
		t.Errorf("status says %q, %v", out, err)
	}
	h.end(syscall.SIGTERM)
	again := startHolding(t, dir, asOther, []net.Listener{web}, "", "--", "DIR/daemon")
	if got, err := answerAt(web.Addr().String()); err != nil || got != "generation 1" {
		t.Errorf("after a new start: %q, %v", got, err)
	}
	again.live(1)
	again.end(syscall.SIGTERM)
}

// What -l says and what is inherited are one where they have a name or an address in
// common; the rest is held besides.
func TestTakenOverSocketsAndSpecs(t *testing.T) {
	dir := binaries(t)
	a, b, c := listening(t, "tcp", "127.0.0.1:0"), listening(t, "tcp", "127.0.0.1:0"), listening(t, "tcp", "127.0.0.1:0")
	h := startHolding(t, dir, nil, []net.Listener{a, b, c}, "a:b:c", "-l", "own=127.0.0.1:0", "-l", "beta="+b.Addr().String(), "-l", "a=127.0.0.1:1", "--", "DIR/daemon", "env")
	s := h.live(1)
	var got []string
	for _, e := range s.Endpoints {
		got = append(got, fmt.Sprintf("%s %s %t", e.Name, e.Addr, e.Inherited))
	}
	want := []string{"a " + a.Addr().String() + " true", "beta " + b.Addr().String() + " true", "c " + c.Addr().String() + " true", "own " + s.Endpoints[3].Addr + " false"}
	if !slices.Equal(got, want) {
		t.Errorf("endpoints are %q, want %q", got, want)
	}
	if !strings.Contains(h.log.String(), "env LISTEN_FDNAMES=a:beta:c:own\n") {
		t.Error("the daemon does not get these names")
	}
	if err := syscall.Kill(s.HolderPID, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	<-h.ended
}

// What can't be held is told by its number and name, and nothing is run.
func TestSocketThatCantBeTakenOver(t *testing.T) {
	dir := binaries(t)
	path := dir + "/x.sock"
	for names, l := range map[string]net.Listener{"": listening(t, "tcp", "127.0.0.1:0"), "x:y": listening(t, "unix", path)} {
		h := startHolding(t, dir, nil, []net.Listener{l, l}[:1+len(names)/3], names, "-l", "127.0.0.1:0", "--", "DIR/daemon")
		if names == "" {
			h.live(1)
			h.end(syscall.SIGTERM)
			continue
		}
		<-h.ended
		if h.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(h.log.String(), "gapless: can't take over fd 3 (x): it is a unix socket; this version holds listening tcp sockets only\n") {
			t.Errorf("it ended with %v", h.cmd.ProcessState)
		}
	}
}

// systemd's own activator starts the holder at the first connection.
func TestUnderSocketActivate(t *testing.T) {
	program, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		if os.Getenv("GAPLESS_REQUIRE_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip("needs systemd-socket-activate")
	}
	dir := binaries(t)
	at := listening(t, "tcp", "127.0.0.1:0")
	at.Close() // it is free
	cmd := exec.Command(program, "-l", at.Addr().String(), "--fdname=web", "-E", "GAPLESS_RUNTIME_DIR="+dir+"/run", "-E", "GORACE=atexit_sleep_ms=0", dir+"/gapless", "run", "--", dir+"/daemon")
	out := &words{}
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for end := time.Now().Add(patience); !strings.Contains(out.String(), "Listening on") && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	if got, err := answerAt(at.Addr().String()); err != nil || got != "generation 1" {
		t.Errorf("got %q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := control.NewClient("daemon", dir+"/run/daemon.sock").Reload(ctx, control.ReloadOptions{}); err != nil {
		t.Error(err)
	}
	if got, err := answerAt(at.Addr().String()); err != nil || got != "generation 2" {
		t.Errorf("then %q, %v", got, err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if !strings.Contains(out.String(), "(web), taken over from the service manager") || t.Failed() {
		t.Errorf("it said:\n%s", out)
	}
}
