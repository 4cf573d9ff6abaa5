package reload

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gapless-dev/gapless/reload/ready"
)

func TestParseEnv(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                nil,
		"A=1":                             {"A=1"},
		"A=1\nB=2\n":                      {"A=1", "B=2"},
		"A=1\r\nB=\r\n":                   {"A=1", "B="},
		"# comment\n; comment\n\n \t\nA=": {"A="},
		"export A=1":                      {"A=1"},
		"  A=1  ":                         {"A=1"},
		"A= 1 ":                           {"A=1"},
		`A="one two "`:                    {"A=one two "},
		`A='"'`:                           {`A="`},
		`A="`:                             {`A="`},
		`A=""`:                            {"A="},
		`A="x'`:                           {`A="x'`},
		"A=b=c#d":                         {"A=b=c#d"},
		"_a9=x":                           {"_a9=x"},
		"A=1\nA=2":                        {"A=1", "A=2"},
	} {
		got, err := ParseEnv(strings.NewReader(text))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v (-want +got):\n%s", text, err, diff)
		}
	}
	for text, want := range map[string]string{
		"A":                               `line 1: want NAME=VALUE, have "A"`,
		"A=1\n\n=2":                       `line 3: want NAME=VALUE, have "=2"`,
		"9A=1":                            "line 1: ",
		"A-B=1":                           "line 1: ",
		"A =1":                            "line 1: ",
		"Ä=1":                             "line 1: ",
		"A=" + strings.Repeat("x", 1<<17): "token too long",
	} {
		if got, err := ParseEnv(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %q, %v", text, got, err)
		}
	}
}

// FuzzParseEnv: what comes out can be put into an environment.
func FuzzParseEnv(f *testing.F) {
	f.Add("A=1\n# comment\nexport B=\"two words\"\n")
	f.Add("A")
	f.Add("A='\n=\x00")
	f.Fuzz(func(t *testing.T, text string) {
		env, err := ParseEnv(strings.NewReader(text))
		for _, kv := range env {
			key, value, found := strings.Cut(kv, "=")
			if !found || !isName(key) || strings.Contains(value, "\n") || !strings.Contains(text, key) || !strings.Contains(text, value) {
				t.Errorf("%q gave %q", text, kv)
			}
		}
		if err != nil && env != nil && !strings.Contains(err.Error(), "too long") {
			t.Errorf("%q gave %q and %v", text, env, err)
		}
	})
}

// The file is read at each start. One that can't be read fails the candidate, and
// live serves on.
func TestEnvFileIsReadAnew(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "env")
	cfg := config(t)
	cfg.EnvFile = file
	cfg.Env = append(cfg.Env, "GREETING=from the service")
	write(t, file, "OTHER=1\n")
	f := start(t, cfg)
	f.until("generation 1", live(1))
	if got := f.get("/env/GREETING"); got != "from the service" {
		t.Errorf("the greeting is %q", got)
	}
	for text, want := range map[string]string{"GREETING": `line 1: want NAME=VALUE, have "GREETING"`, "absent": "no such file"} {
		write(t, file, text)
		if text == "absent" {
			os.Remove(file)
		}
		_, err := f.reload()
		if got := failure(t, err); got.Code != CodeFailed || !strings.Contains(got.Reason, "can't read the environment file") || !strings.Contains(got.Reason, want) {
			t.Errorf("%s: %#v", text, got)
		}
		if got := f.generation(); got != "1" {
			t.Errorf("answered by %q", got)
		}
	}
	// The file's word is the last, but for what gapless itself says.
	write(t, file, "GREETING='from the file'\nGAPLESS_GENERATION=x\nGAPLESS_SERVICE=x\nLISTEN_FDS=9\nLISTEN_PID=1\nNOTIFY_SOCKET=/x\n")
	f.mustReload()
	for name, want := range map[string]string{"GREETING": "from the file", "GAPLESS_GENERATION": "4", "GAPLESS_SERVICE": "web", "LISTEN_FDS": "1"} {
		if got := f.get("/env/" + name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if got := f.get("/env/NOTIFY_SOCKET"); !strings.HasPrefix(got, "@gapless/") {
		t.Errorf("NOTIFY_SOCKET is %q", got)
	}
}

func TestUnknownUser(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ user, group, want string }{
		{"no-such-user", "", "can't run as no-such-user: "},
		{"4294967294", "", "can't run as 4294967294: "},
		{"", "no-such-group", "can't run as group no-such-group: "},
	} {
		cfg := config(t)
		cfg.User, cfg.Group = c.user, c.group
		if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// The daemon is the user's, with the user's home, whatever the holder's is.
func TestRunsAsUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can run a daemon as somebody else")
	}
	t.Parallel()
	cfg := config(t)
	cfg.User, cfg.Group = "nobody", "daemon"
	cfg.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "USER=root"}
	cfg.Command = []string{"sh", "-c", "id -u; id -g; printenv HOME USER LOGNAME; exec sleep 600"}
	cfg.Ready = ready.Options{Mode: ready.Delay, Delay: time.Millisecond}
	f := start(t, cfg)
	f.until("its words", func(Status) bool { return strings.Count(f.out.String(), "\n") == 5 })
	if got := f.out.String(); got != "65534\n1\n/nonexistent\nnobody\nnobody\n" {
		t.Errorf("it said %q", got)
	}
}

// A command, its directory and every link on the way to them are looked up at each
// start: that is what a deploy changes.
func TestCommandIsResolvedAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, version := range []string{"1", "2"} {
		deploy(t, filepath.Join(dir, version), version, 0o700)
	}
	current := filepath.Join(dir, "current")
	point := func(to string) {
		t.Helper()
		os.Remove(current)
		if err := os.Symlink(to, current); err != nil {
			t.Fatal(err)
		}
	}
	point("1")
	cfg := config(t)
	cfg.Dir, cfg.Command = current, []string{"./web"}
	f := start(t, cfg)
	f.until("generation 1", live(1))
	version := func(want string) {
		t.Helper()
		if got := f.get("/env/VERSION"); got != want {
			t.Errorf("version %q serves, want %s", got, want)
		}
	}
	version("1")
	point("2")
	version("1")
	f.mustReload()
	version("2")
	deploy(t, current, "3", 0o600) // in place
	_, err := f.reload()
	if got := failure(t, err); got.Code != CodeRefused || got.ExitCode != 126 || !strings.Contains(got.Reason, "could not be run: can't run ./web: not executable") {
		t.Errorf("%#v", got)
	}
	version("2")
	os.Remove(filepath.Join(current, "web"))
	_, err = f.reload()
	if got := failure(t, err); got.Code != CodeRefused || got.ExitCode != 127 {
		t.Errorf("%#v", got)
	}
	os.Remove(current)
	_, err = f.reload()
	if got := failure(t, err); got.Code != CodeRefused || !strings.Contains(got.Reason, "can't change to its directory") {
		t.Errorf("%#v", got)
	}
	version("2")
	deploy(t, filepath.Join(dir, "2"), "4", 0o700)
	point("2")
	f.get("/die")
	f.until("the replacement", func(s Status) bool { return s.Live() != nil && s.Live().Number > 5 })
	version("4")
}

// deploy a daemon that knows its version.
func deploy(t *testing.T, dir, version string, mode os.FileMode) {
	t.Helper()
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "web")
	os.Remove(path)
	text := "#!/bin/sh\nVERSION=" + version + " exec " + self + " daemon\n"
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
