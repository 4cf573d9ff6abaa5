package spawn

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// What is run is told as it was found: by which path, in which directory, and open,
// so that it can be run again when it is not there any more.
func TestProgramIsReportedAndRunAgain(t *testing.T) {
	dir := t.TempDir()
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "nap"), sleep, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "current")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	o := options(t, "./nap", "600")
	o.Dir, o.Report, o.Listeners = link, true, sockets(t, 2)
	first := run(t, o).Program()
	if first == nil || first.Path != dir+"/nap" || first.Dir != dir || first.File == nil {
		t.Fatalf("reported %+v", first)
	}
	defer first.File.Close()
	if b, err := io.ReadAll(first.File); err != nil || string(b) != string(sleep) {
		t.Errorf("%d bytes of %d, %v", len(b), len(sleep), err)
	}

	if err := os.Remove(dir + "/nap"); err != nil {
		t.Fatal(err)
	}
	var fault *ExecError
	if _, err := Start(t.Context(), o); !errors.As(err, &fault) {
		t.Errorf("without its file: %v", err)
	}
	o.Report, o.Path, o.Program = false, first.Path, first.File
	p := run(t, o)
	environ(t, p.PID())
	hasExactly(t, p.PID(), promised(o.Listeners))
	if exe := processFile(t, p.PID(), "exe"); exe != dir+"/nap (deleted)" || p.Program() != nil {
		t.Errorf("it runs %q, reported %+v", exe, p.Program())
	}
}

func processFile(t *testing.T, pid int, name string) string {
	t.Helper()
	to, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), name))
	if err != nil {
		t.Fatal(err)
	}
	return to
}
