package spawn

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func program(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// A command that can't be run is an ExecError with the code that a shell would end
// with, and nothing of it is left.
func TestCommandThatCannotRun(t *testing.T) {
	dir := t.TempDir()
	plain := program(t, dir+"/plain", "#!/bin/sh\n", 0o644)
	noMagic := program(t, dir+"/no-magic", "exit 0\n", 0o755)
	garbage := program(t, dir+"/garbage", "\x7fELF but not quite", 0o755)
	noInterpreter := program(t, dir+"/no-interpreter", "#!/no/such/interpreter\n", 0o755)
	for _, c := range []struct {
		name, command, dir, path string
		code                     int
		want                     string
	}{
		{"not in PATH", "no-such-command", "", dir, 127, "not found in PATH"},
		{"no PATH", "sleep", "", "", 127, "not found in PATH"},
		{"absent", "/no/such/daemon", "", dir, 127, "no such file"},
		{"absent from the directory", "./daemon", dir, dir, 127, "no such file"},
		{"not executable", plain, "", dir, 126, "not executable"},
		{"not executable in PATH", "plain", "", dir, 127, "not found in PATH"},
		{"directory", dir, "", dir, 126, "is a directory"},
		{"no magic", noMagic, "", dir, 126, "exec format error"},
		{"garbage", garbage, "", dir, 126, "exec format error"},
		{"no interpreter", noInterpreter, "", dir, 126, "no such file or directory"},
		{"no such directory", "sleep", dir + "/absent", "/bin:/usr/bin", 126, "can't change to its directory"},
		{"directory is a file", "sleep", plain, "/bin:/usr/bin", 126, "can't change to its directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := options(t, c.command)
			o.Dir, o.Env = c.dir, []string{"PATH=" + c.path}
			o.Listeners = sockets(t, 2)
			_, err := Start(t.Context(), o)
			var fault *ExecError
			if !errors.As(err, &fault) || fault.Code != c.code || fault.Command != c.command || !strings.Contains(fault.Reason, c.want) {
				t.Errorf("%#v", err)
			}
		})
	}
}

// As the user that it will be, not as the holder's.
func TestCommandNotForThisUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can run a daemon as somebody else")
	}
	path := program(t, t.TempDir()+"/private", "#!/bin/sh\n", 0o700)
	o := options(t, path)
	o.Credential = &Credential{UID: 65534, GID: 65534}
	_, err := Start(t.Context(), o)
	var fault *ExecError
	if !errors.As(err, &fault) || fault.Code != 126 {
		t.Errorf("%v", err)
	}
}

// The command is looked up in the daemon's PATH and directory, not the holder's.
func TestCommandIsLookedUpInItsOwnEnvironment(t *testing.T) {
	dir := t.TempDir()
	program(t, dir+"/bin/tool", "#!/bin/sh\nexit 41\n", 0o755)
	program(t, dir+"/other/tool", "#!/bin/sh\nexit 42\n", 0o755)
	for _, c := range []struct {
		name, command, dir string
		env                []string
		code               int
	}{
		{"PATH", "tool", "", []string{"PATH=/nowhere:" + dir + "/bin:" + dir + "/other"}, 41},
		{"the last PATH counts", "tool", "", []string{"PATH=" + dir + "/bin", "PATH=" + dir + "/other"}, 42},
		{"relative PATH", "tool", dir, []string{"PATH=other"}, 42},
		{"relative command", "bin/tool", dir, nil, 41},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t, c.command)
			o.Dir, o.Env = c.dir, c.env
			p := run(t, o)
			<-p.Exited()
			if p.Exit().Code != c.code {
				t.Errorf("it ended with %s", p.Exit())
			}
		})
	}
}

func TestNoShim(t *testing.T) {
	o := options(t, "sleep", "600")
	o.Shim = []string{"/no/such/shim"}
	if _, err := Start(t.Context(), o); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "can't start sleep: ") {
		t.Errorf("%v", err)
	}
}

// A shim that hangs, in a dead file system say, is killed with its group.
func TestCancelledStart(t *testing.T) {
	o := options(t, "sleep", "600")
	o.Shim[1] = "__stuck"
	ctx, cancel := context.WithCancelCause(t.Context())
	began := time.AfterFunc(20*time.Millisecond, func() { cancel(syscall.EINTR) })
	defer began.Stop()
	if _, err := Start(ctx, o); !errors.Is(err, syscall.EINTR) || !strings.Contains(err.Error(), " sleep: ") {
		t.Errorf("%v", err)
	}
	cancel(nil)
	if _, err := Start(ctx, o); err == nil {
		t.Error("a start with a context that has ended succeeded")
	}
}
