package spawn

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/bind"
	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// The test binary is also the shim, a shim that never finishes, and a holder whose
// limit on descriptors is small, told apart by its arguments. TestMain fails the
// run if a test leaves a goroutine, a descriptor or a child behind.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "__shim":
			Shim(os.Args[2:])
		case "__parent":
			os.Exit(parent(os.Args[2:]))
		case "__stuck":
			<-make(chan os.Signal)
		case "__bind":
			os.Exit(bindAndTell())
		case "__nested":
			os.Exit(holdNested())
		case "__writer":
			os.Exit(writeWhenTold())
		case "__bound":
			os.Exit(bind.TrialDaemon() + 3)
		case "__holder":
			os.Exit(holdWithSmallLimit(os.Args[2:]))
		}
	}
	os.Exit(leaktest.Run(m, 0))
}

func procState(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	return string(bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])[0])
}

// options run a command as the daemon, with nothing to read and its words to the
// test's own.
func options(t *testing.T, argv ...string) Options {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	return Options{
		Order: Order{Argv: argv, Env: []string{"PATH=" + os.Getenv("PATH")}},
		Shim:  []string{"/proc/self/exe", "__shim"}, Stdin: null, Stdout: null, Stderr: null,
		Cgroups: FindCgroups(), Name: "test",
	}
}

// run starts it and ends it with the test.
func run(t *testing.T, o Options) *Process {
	t.Helper()
	reaper, err := NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reaper.Close)
	p, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		<-p.Gone()
	})
	return p
}

// sockets are n of them, named, that stay open until the test ends.
func sockets(t *testing.T, n int) []handoff.File {
	t.Helper()
	files, err := openSockets(n, 3)
	t.Cleanup(func() { handoff.CloseFiles(files) })
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// openSockets at numbers from first on.
func openSockets(n, first int) ([]handoff.File, error) {
	var files []handoff.File
	for i := range n {
		low, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return files, err
		}
		fd, err := unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, first)
		unix.Close(low)
		if err != nil {
			return files, err
		}
		files = append(files, handoff.File{Name: fmt.Sprintf("socket-%d", i), FD: fd})
	}
	return files, nil
}

// until looks again and again, for things that the kernel has no event for.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// environ is the environment that pid was exec'd with.
func environ(t *testing.T, pid int) map[string]string {
	t.Helper()
	var b []byte
	until(t, "an environment", func() bool {
		b, _ = os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		return bytes.Contains(b, []byte(markName+"="))
	})
	env := map[string]string{}
	for kv := range strings.SplitSeq(strings.TrimSuffix(string(b), "\x00"), "\x00") {
		key, value, _ := strings.Cut(kv, "=")
		env[key] = value
	}
	return env
}

// writeWhenTold is a daemon that writes a line at SIGUSR1 and ends, with 9 if it
// can't; "ready" goes out first.
func writeWhenTold() int {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR1)
	fmt.Println("ready")
	<-told
	if _, err := unix.Write(1, []byte("still here\n")); err != nil {
		return 9
	}
	return 0
}
