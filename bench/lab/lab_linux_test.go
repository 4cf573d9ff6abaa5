package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// The test binary is also an owner of a lab who is about to be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "__owner" {
		l, err := Boot(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(l.dir, l.pid)
		select {}
	}
	os.Exit(leaktest.Run(m, 0))
}

// boot is a lab of the test's own.
func boot(t *testing.T) *Lab {
	t.Helper()
	if err := Missing(); err != nil {
		if os.Getenv("GAPLESS_REQUIRE_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	l, err := Boot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// answering says its word to whoever connects to its port.
func answering(word string) map[string]string {
	return map[string]string{
		"answer.socket":   "[Socket]\nListenStream=127.0.0.1:80\nAccept=yes\n",
		"answer@.service": "[Service]\nExecStart=echo " + word + "\nStandardInput=socket\nStandardOutput=socket\n",
	}
}

func TestLabsKnowNothingOfEachOther(t *testing.T) {
	var wg sync.WaitGroup
	for _, word := range []string{"one", "two"} {
		l := boot(t)
		wg.Go(func() { testAnswers(t, l, word) })
	}
	wg.Wait()
}

func testAnswers(t *testing.T, l *Lab, word string) {
	ctx := patient(t)
	if err := l.Units(ctx, answering(word)); err != nil {
		t.Error(err)
		return
	}
	if _, err := l.Run(ctx, "systemctl", "start", "answer.socket"); err != nil {
		t.Error(err)
	}
	if err := l.Until(ctx, "answer.socket", map[string]string{"ActiveState": "active", "SubState": "listening"}); err != nil {
		t.Error(err)
	}
	c, err := l.DialContext(ctx, "tcp", "127.0.0.1:80")
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if b, err := io.ReadAll(c); string(b) != word+"\n" {
		t.Errorf("%q, %v; %s", b, err, l.Journal(ctx, "answer*"))
	}
}

// What runs inside can do nothing to this machine: the settings can't be written,
// the file system is a copy, and processes, cgroups and devices are its own.
func TestNothingOutsideCanBeChanged(t *testing.T) {
	l := boot(t)
	ctx := patient(t)
	for _, command := range []string{
		"echo 1 >/proc/sys/kernel/panic",
		"echo 1 >/sys/kernel/profiling",
		"echo h >/proc/sysrq-trigger; grep sysrq-trigger /proc/mounts || ! test -e /proc/sysrq-trigger && exit 1",
		"ls /dev/vda /dev/sda /dev/kmsg",
		"test -e " + l.dir,
		"kill -0 " + strconv.Itoa(os.Getpid()),
	} {
		if out, err := l.Run(ctx, "sh", "-c", command); err == nil {
			t.Errorf("%s went well: %s", command, out)
		}
	}
	if _, err := l.Run(ctx, "sh", "-c", "echo inside >/etc/gapless-was-here; echo shared >"+Inside+"/file"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/etc/gapless-was-here"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of inside is outside: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(l.Share(), "file")); string(b) != "shared\n" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestWhatAUnitShows(t *testing.T) {
	l := boot(t)
	ctx := patient(t)
	if err := l.Units(ctx, map[string]string{"bad.service": "[Service]\nExecStart=false\n"}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Run(ctx, "systemctl", "start", "bad.service"); err != nil {
		t.Error(err)
	}
	if err := l.Until(ctx, "bad.service", map[string]string{"ActiveState": "failed", "Result": "exit-code"}); err != nil {
		t.Error(err)
	}
	_, err := l.Run(ctx, "systemctl", "start", "nosuch.service")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(err.Error(), "nosuch.service not found") {
		t.Errorf("%v", err)
	}
	if got, err := l.Show(ctx, "bad.service", "Result", "ExecMainStatus"); got["Result"] != "exit-code" || got["ExecMainStatus"] != "1" {
		t.Errorf("%v, %v", got, err)
	}
	if j := l.Journal(ctx, "bad.service"); !strings.Contains(j, "Failed with result 'exit-code'") {
		t.Errorf("the journal: %s", j)
	}
	hurried, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := l.Until(hurried, "bad.service", map[string]string{"Result": "success"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if v, err := l.Version(ctx); v < 200 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
}

// traces of a lab outside: mounts, cgroups, files.
func traces(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	if _, err := os.Stat(dir); err == nil {
		all = append(all, dir)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(dir)
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.Contains(line, name) {
			all = append(all, line)
		} else if fields[2] == "cgroup2" {
			filepath.WalkDir(fields[1], func(path string, _ os.DirEntry, _ error) error {
				if filepath.Base(path) == name {
					all = append(all, path)
					return filepath.SkipDir
				}
				return nil
			})
		}
	}
	return all
}

func TestCloseLeavesNothing(t *testing.T) {
	l := boot(t)
	if got := traces(t, l.dir); !slices.Contains(got, l.dir) {
		t.Fatalf("this looks in the wrong place: %q", got)
	}
	stubborn := map[string]string{"stubborn.service": "[Service]\nExecStart=sh -c 'trap \"\" TERM; while :; do sleep 60; done'\n"}
	ctx := patient(t)
	if err := l.Units(ctx, stubborn); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Run(ctx, "systemctl", "start", "stubborn.service"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if got := traces(t, l.dir); len(got) > 0 {
		t.Errorf("left behind: %q", got)
	}
	if err := syscall.Kill(l.pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("pid 1 lives: %v", err)
	}
}

func TestAKilledOwnerLeavesNothing(t *testing.T) {
	if err := Missing(); err != nil {
		t.Skip(err)
	}
	owner := exec.Command(os.Args[0], "__owner")
	owner.Stderr = os.Stderr
	out, err := owner.StdoutPipe()
	if err != nil || owner.Start() != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	owner.Process.Kill()
	owner.Wait()
	var dir string
	var pid int
	if n, _ := fmt.Sscan(line, &dir, &pid); n != 2 {
		t.Fatalf("%q, %v", line, err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		gone := errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
		if left := traces(t, dir); gone && len(left) == 0 {
			return
		} else if time.Now().After(end) {
			t.Fatalf("pid 1 is gone: %v; left behind: %q", gone, left)
		}
	}
}

func TestABootThatIsGivenUp(t *testing.T) {
	if err := Missing(); err != nil {
		t.Skip(err)
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	l, err := Boot(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", l, err)
	}
	if left, err := os.ReadDir(tmp); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
