package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench/lab"
	"github.com/gapless-dev/gapless/bench/rig"
	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// The machine of all tests, with gapless and the unit installed.
var (
	machine lab.Shared
	install sync.Once
)

// TestMain: the test binary is also the daemon.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "__daemon" {
		os.Exit(daemon(os.Args[2]))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	before := leaktest.OpenFiles("self")
	code := m.Run()
	err := machine.Close()
	if err == nil && code == 0 {
		err = leaktest.Find(before, 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// booted is the machine.
func booted(t *testing.T) *lab.Lab {
	t.Helper()
	l := machine.Of(t)
	var err error
	install.Do(func() { err = installAll(l) })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// installAll is what a user does: the binary, the unit, a directory for what to run.
func installAll(l *lab.Lab) error {
	dir, err := os.MkdirTemp("", "gapless-systemd-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	built, err := rig.Build(ctx, dir, false)
	if err != nil {
		return err
	}
	unit, err := os.ReadFile("gapless@.service")
	if err != nil {
		return err
	}
	return errors.Join(
		copyFile(filepath.Join(l.Root(), "usr/local/bin/gapless"), built.Gapless),
		copyFile(filepath.Join(l.Share(), "daemon"), "/proc/self/exe"),
		os.MkdirAll(filepath.Join(l.Root(), "etc/gapless"), 0o755),
		l.Units(ctx, map[string]string{"gapless@.service": string(unit)}))
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// service is an instance of the unit.
type service struct {
	*lab.Lab
	t    *testing.T
	name string
	addr string
}

// define makes an instance, with more configuration and a drop-in, and ends it with
// the test. mode is how its daemon behaves.
func define(t *testing.T, name, mode string, port int, conf, dropIn string) *service {
	t.Helper()
	s := &service{Lab: booted(t), t: t, name: name, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	os.Remove(s.file("go"))
	os.Remove(s.file("signals"))
	s.behave(mode)
	conf = fmt.Sprintf("GAPLESS_LISTEN=http=%s\nGAPLESS_COMMAND=%s/daemon __daemon %s/%s\n", s.addr, lab.Inside, lab.Inside, name) + conf
	if err := os.WriteFile(filepath.Join(s.Root(), "etc/gapless", name+".conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	if dropIn != "" {
		if err := s.Units(s.patient(), map[string]string{s.unit() + ".d/test.conf": dropIn}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the journal of %s:\n%s", s.unit(), s.Journal(context.Background(), s.unit()))
		}
		s.Run(context.Background(), "systemctl", "stop", s.unit())
	})
	return s
}

func (s *service) unit() string { return "gapless@" + s.name + ".service" }

func (s *service) patient() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	s.t.Cleanup(cancel)
	return ctx
}

// behave is how generations from now on will be.
func (s *service) behave(mode string) {
	s.t.Helper()
	if err := os.WriteFile(s.file("mode"), []byte(mode), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// file is one that the daemon of the service finds.
func (s *service) file(what string) string { return filepath.Join(s.Share(), s.name+"."+what) }

func (s *service) read(what string) string {
	b, err := os.ReadFile(s.file(what))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Error(err)
	}
	return string(b)
}

// systemctl must do what it is asked.
func (s *service) systemctl(verb string, args ...string) {
	s.t.Helper()
	if _, err := s.Run(s.patient(), "systemctl", append(append([]string{verb}, args...), s.unit())...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) show(property string) string {
	s.t.Helper()
	got, err := s.Show(s.patient(), s.unit(), property)
	if err != nil {
		s.t.Fatal(err)
	}
	return got[property]
}

// until pairs of property and value are so.
func (s *service) until(pairs ...string) {
	s.t.Helper()
	want := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		want[pairs[i]] = pairs[i+1]
	}
	if err := s.Until(s.patient(), s.unit(), want); err != nil {
		s.t.Fatal(err)
	}
}

// processes that are in the unit's cgroup or below, by line.
func (s *service) processes() string {
	out, err := s.Run(s.patient(), "sh", "-c", "find /sys/fs/cgroup/system.slice -path '*"+s.unit()+"*' -name cgroup.procs -exec cat {} +")
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}
