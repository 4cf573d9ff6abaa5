package leaktest

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only goroutines are looked for without /proc")
	}
	before := OpenFiles("self")
	if err := Find(before, 0); err != nil {
		t.Fatal(err)
	}
	finds := func(what string) {
		t.Helper()
		if err := Find(before, 0); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	done := make(chan struct{})
	go func() { <-done }()
	finds("goroutines leaked")
	close(done)

	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	finds("files leaked")
	if err := Find(before, 1); err != nil {
		t.Error(err)
	}
	f.Close()

	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	before = OpenFiles("self") // its pidfd
	finds("children left behind")
	cmd.Process.Kill()
	cmd.Wait()
	if err := Find(before, 0); err != nil {
		t.Error(err)
	}
}
