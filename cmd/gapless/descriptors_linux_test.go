package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/state"
)

// every how many descriptors a sweep looks.
func every(short int) int {
	if os.Getenv("GAPLESS_LONG") != "" {
		return 1
	}
	return short
}

// Without descriptors for it, at whatever point they run out, a reload fails at once
// with a reason that says so and what to do, or succeeds; its clients notice nothing,
// the holder can be asked how it is, nothing stays behind, and with descriptors the
// next one works.
func TestReloadWithoutDescriptors(t *testing.T) {
	t.Parallel()
	h := hold(t, nil)
	h.mustReload() // what is opened once only is open now
	h.quiet()
	before := h.settledFiles()
	h.load()
	failed, succeeded := 0, 0
	for free := 0; free <= 40; free += every(3) {
		h.leave(free)
		_, err := h.reload()
		if _, err := h.client.Status(h.within()); err != nil {
			t.Errorf("status with room for %d: %v", free, err)
		}
		if free == 0 {
			h.status("connections that can't be counted", func(s reload.Status) bool { return s.MeasuredOf(*s.Live()).Connections == -1 })
		}
		h.limit(1 << 20)
		if err == nil {
			succeeded++
		} else {
			failed++
			mustNameLimit(t, err)
			h.mustReload()
		}
		h.quiet()
	}
	if failed < 3 || succeeded < 3 {
		t.Errorf("%d reloads failed, %d succeeded", failed, succeeded)
	}
	h.mustBeAsBefore(before)
}

func mustNameLimit(t *testing.T, err error) {
	t.Helper()
	var f *reload.Failure
	if !errors.As(err, &f) || f.Code != reload.CodeFailed && f.Code != reload.CodeNotReady || f.Generation == 0 ||
		!strings.Contains(f.Reason, "raise its limit (ulimit -n") && !strings.Contains(f.Reason, "RLIMIT_NOFILE") {
		t.Errorf("a reload without descriptors: %#v", err)
	}
}

// mustBeAsBefore: so many files are open, and the live daemon is the only child.
func (h *held) mustBeAsBefore(files int) {
	h.t.Helper()
	if after := h.settledFiles(); after != files {
		h.t.Errorf("%d files were open, now %d", files, after)
	}
	if n := h.children(); n != 1 {
		h.t.Errorf("it has %d children", n)
	}
}

// Descriptors run out when a candidate is about to be ready: what comes from here on
// (the switch, settling, the end of the old one) is done all the same.
func TestSwitchWithoutDescriptors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	what, ready := filepath.Join(dir, "what"), filepath.Join(dir, "ready")
	mustWrite(t, what, "until "+ready)
	mustWrite(t, ready, "")
	h := hold(t, nil, "--pid-file", filepath.Join(dir, "pid"), "--", "daemon", "from", what)
	h.mustReload()
	before := h.quiet().Live().Number
	files := h.settledFiles()
	h.load()
	for free := 0; free <= 6; free += every(2) {
		if err := os.Remove(ready); err != nil {
			t.Fatal(err)
		}
		told := make(chan error, 1)
		go func() { _, err := h.reload(); told <- err }()
		h.status("the candidate", func(s reload.Status) bool {
			g := s.Generation(before + 1)
			return g != nil && g.PID != 0 && g.Phase == state.Starting
		})
		h.leave(free)
		mustWrite(t, ready, "")
		if err := <-told; err != nil {
			t.Errorf("with room for %d: %v", free, err)
		}
		s, err := h.client.Status(h.within())
		if err != nil || s.Live() == nil || s.Live().Number != before+1 {
			t.Errorf("status with room for %d: %+v, %v", free, s, err)
		}
		h.quiet() // without descriptors still
		h.limit(1 << 20)
		before++
	}
	h.mustBeAsBefore(files)
}

// What can't be looked at any more is ended all the same, and what was made is removed.
func TestEndWithoutDescriptors(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"shutdown", "TERM"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			h := hold(t, nil, "--stop-timeout", "500ms", "--", "daemon", "grandchild")
			h.leave(0)
			if end == "TERM" {
				h.cmd.Process.Signal(syscall.SIGTERM)
			} else if err := h.client.Shutdown(h.within(), patience); err != nil {
				t.Error(err)
			}
			select {
			case <-h.ended:
			case <-time.After(patience):
				t.Fatal("the holder does not end")
			}
			if _, err := os.Lstat(filepath.Join(h.dir, "web.sock")); err == nil {
				t.Error("the socket file is still there")
			}
		})
	}
}

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
