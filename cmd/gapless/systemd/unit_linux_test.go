package systemd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench"
)

// get is an answer of the service, from inside.
func (s *service) get(path string) (string, error) {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: s.DialContext}}
	resp, err := client.Get("http://" + s.addr + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// answers fails the test unless somebody does.
func (s *service) answers(path string) string {
	s.t.Helper()
	text, err := s.get(path)
	if err != nil {
		s.t.Error(err)
	}
	return text
}

// lossless: under load nothing fails while f runs.
func (s *service) lossless(f func()) {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.t.Context())
	defer stop()
	load := bench.Load{Kind: bench.PerRequest, Rate: 200, Addr: s.addr, Duration: time.Minute, Tolerance: 2 * time.Second,
		Dial: func(ctx context.Context) (net.Conn, error) { return s.DialContext(ctx, "tcp", s.addr) }}
	var r *bench.Result
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { r, err = load.Run(ctx) })
	f()
	stop()
	wg.Wait()
	if err != nil {
		s.t.Fatal(err)
	}
	if r.Failed() > 0 || r.Sent == 0 {
		s.t.Errorf("%d of %d requests failed: %v, e.g. %v", r.Failed(), r.Sent, r.Failures, r.Listed[:min(3, len(r.Listed))])
	}
}

// systemd finds nothing to say about the unit.
func TestUnitIsVerified(t *testing.T) {
	s := define(t, "verify", "serve", 8001, "", "")
	cmd := s.Command(s.patient(), "systemd-analyze", "verify", "--man=no", s.unit())
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

// Active means live, however long that takes: the time is gapless's to judge. And
// what a generation is told is not what gapless was told.
func TestUnitIsActiveWhenLive(t *testing.T) {
	const limit = 500 * time.Millisecond
	s := define(t, "slow", "slow", 8002, "", "[Service]\nTimeoutStartSec="+limit.String()+"\n")
	s.systemctl("start", "--no-block")
	s.until("ActiveState", "activating", "StatusText", "no generation live, clients wait, generation 1 starting")
	time.Sleep(2 * limit) // in which systemd would have given up
	s.until("ActiveState", "activating", "SubState", "start")
	if err := os.WriteFile(s.file("go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.until("ActiveState", "active", "SubState", "running", "StatusText", "generation 1 live", "NRestarts", "0")
	for line := range strings.Lines(s.answers("/environment")) {
		for _, mark := range []string{"WATCHDOG_", "NOTIFY_SOCKET=/run/systemd", "GAPLESS_COMMAND", "GAPLESS_LISTEN"} {
			if strings.HasPrefix(line, mark) {
				t.Errorf("the daemon got %s", line)
			}
		}
	}
}

// Reloads lose nothing, whoever asks for them, and leave the unit what it was.
func TestUnitReloads(t *testing.T) {
	s := define(t, "reloads", "serve", 8003, "", "")
	s.systemctl("start")
	holder := s.show("MainPID")
	s.lossless(func() {
		for n := 2; n <= 6; n += 2 {
			s.systemctl("reload")
			s.generation(n)
			if _, err := s.Run(s.patient(), "kill", "-HUP", s.show("MainPID")); err != nil {
				t.Fatal(err)
			}
			s.generation(n + 1)
		}
	})
	s.until("ActiveState", "active", "SubState", "running", "MainPID", holder, "NRestarts", "0")
}

// generation n is live, and the one before has gone.
func (s *service) generation(n int) {
	s.t.Helper()
	s.until("StatusText", "generation "+strconv.Itoa(n)+" live")
}

func TestUnitReloadThatFails(t *testing.T) {
	s := define(t, "fails", "serve", 8004, "", "")
	s.systemctl("start")
	s.behave("bad")
	s.lossless(func() {
		for range 2 {
			_, err := s.Run(s.patient(), "systemctl", "reload", s.unit())
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("systemctl reload: %v", err)
			}
			s.until("ActiveState", "active", "SubState", "running", "StatusText", "generation 1 live", "NRestarts", "0")
		}
	})
	// ExecReload's own words, with the reason and the daemon's.
	for _, words := range []string{"ended before it was ready: exit status 3", "this version is bad"} {
		if journal := s.Journal(s.patient(), s.unit()); !strings.Contains(journal, words) {
			t.Errorf("the journal lacks %q: %s", words, journal)
		}
	}
	s.behave("serve")
	s.systemctl("reload") // a failure before is no matter
	s.generation(4)
}

// The daemon is told to stop once, by gapless, and has its time.
func TestUnitStops(t *testing.T) {
	s := define(t, "stops", "serve", 8005, "", "")
	s.systemctl("start")
	s.systemctl("stop")
	s.until("ActiveState", "inactive", "Result", "success", "ExecMainStatus", "0")
	if got := s.read("signals"); got != "TERM\n" {
		t.Errorf("the daemon was told %q", got)
	}
	if left := s.processes(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// Nobody outstays the time, whether it is in gapless's process group or not.
func TestUnitStopsTheDeaf(t *testing.T) {
	s := define(t, "deaf", "deaf", 8006, "GAPLESS_STOP_TIMEOUT=1s\n", "")
	s.systemctl("start")
	if s.processes() == "" {
		t.Fatal("this looks in the wrong place")
	}
	s.systemctl("stop")
	if got := s.show("ActiveState"); got == "active" {
		t.Errorf("it is %s", got)
	}
	if got := s.show("Result"); got == "timeout" {
		t.Error("gapless itself outstayed its time")
	}
	if left := s.processes(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// A drain may take longer than a stop of systemd's: gapless asks for the time.
func TestUnitDrains(t *testing.T) {
	s := define(t, "drains", "deaf", 8008, "GAPLESS_DRAIN_TIMEOUT=2s\nGAPLESS_STOP_TIMEOUT=1s\n", "[Service]\nTimeoutStopSec=500ms\nRestart=no\n")
	s.systemctl("start")
	s.Run(s.patient(), "gapless", "shutdown", s.name)
	s.until("SubState", "failed", "Result", "exit-code", "ExecMainStatus", "137") // the daemon's end, not gapless's
	if left := s.processes(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// A shutdown that gapless was asked for is a stop like another: systemd does not
// start it again.
func TestUnitIsShutDown(t *testing.T) {
	s := define(t, "shutdown", "serve", 8007, "", "")
	s.systemctl("start")
	if _, err := s.Run(s.patient(), "gapless", "shutdown", s.name); err != nil {
		t.Fatal(err)
	}
	s.until("ActiveState", "inactive", "Result", "success", "NRestarts", "0")
}

// What happens to gapless itself: it is started again, the old daemon is gone by
// then, and the new one serves.
func TestUnitIsRestarted(t *testing.T) {
	for i, c := range []struct{ name, signal, dropIn string }{
		{"hangs", "STOP", "[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n"},
		{"dies", "KILL", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := define(t, c.name, "serve", 8010+i, "", c.dropIn)
			s.systemctl("start")
			old := s.answers("/pid")
			if _, err := s.Run(s.patient(), "kill", "-"+c.signal, s.show("MainPID")); err != nil {
				t.Fatal(err)
			}
			s.until("NRestarts", "1", "ActiveState", "active", "StatusText", "generation 1 live")
			if again := s.answers("/pid"); again == old {
				t.Errorf("%s serves still", old)
			}
			if _, err := s.Run(s.patient(), "kill", "-0", old); err == nil {
				t.Errorf("the old daemon %s is still there", old)
			}
		})
	}
}

// A holder that works is not taken for one that hangs.
func TestUnitLivesWithItsWatchdog(t *testing.T) {
	s := define(t, "watched", "serve", 8012, "", "[Service]\nWatchdogSec=500ms\n")
	s.systemctl("start")
	fed := s.show("WatchdogTimestampMonotonic")
	for range 5 {
		s.systemctl("reload")
		s.untilNot("WatchdogTimestampMonotonic", fed)
		fed = s.show("WatchdogTimestampMonotonic")
	}
	s.until("ActiveState", "active", "NRestarts", "0")
}

func (s *service) untilNot(property, value string) {
	s.t.Helper()
	for ctx := s.patient(); s.show(property) == value; {
		if ctx.Err() != nil {
			s.t.Fatalf("%s stays %s", property, value)
		}
	}
}

// No start limit: when what was deployed works at last, it runs, and nobody needs to
// do anything.
func TestUnitIsNeverGivenUp(t *testing.T) {
	s := define(t, "stubborn", "bad", 8013, "", "[Service]\nRestartSec=20ms\n")
	s.systemctl("start", "--no-block")
	for ctx := s.patient(); ; {
		if n, err := strconv.Atoi(s.show("NRestarts")); err == nil && n > 10 {
			break
		} else if ctx.Err() != nil {
			t.Fatalf("%d restarts, %v", n, err)
		}
	}
	s.behave("serve")
	s.until("ActiveState", "active", "SubState", "running", "StatusText", "generation 1 live")
	s.answers("/pid")
}

// Where systemd knows Type=notify-reload, it asks by SIGHUP itself and waits for what
// comes of it.
func TestUnitOfTypeNotifyReload(t *testing.T) {
	l := booted(t)
	if v, err := l.Version(t.Context()); err != nil || v < 253 {
		t.Skipf("systemd %d does not know notify-reload: %v", v, err)
	}
	s := define(t, "signalled", "serve", 8014, "", "[Service]\nType=notify-reload\nExecReload=\n")
	s.systemctl("start")
	s.lossless(func() {
		for n := 2; n < 5; n++ {
			s.systemctl("reload")
			if st := s.show("StatusText"); !strings.HasPrefix(st, "generation "+strconv.Itoa(n)+" live") {
				t.Errorf("after reload %d: %s", n-1, st)
			}
		}
	})
}
