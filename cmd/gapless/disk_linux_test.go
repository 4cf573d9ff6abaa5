package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// onTinyDisk starts the holder in a mount namespace of its own, where dir is a file
// system with room for so many files; it needs root.
func onTinyDisk(t *testing.T, dir, options string) func(*exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a file system of its own needs root")
	}
	return func(c *exec.Cmd) {
		path, err := exec.LookPath("unshare")
		if err != nil {
			t.Fatal(err)
		}
		script := fmt.Sprintf("mount -t tmpfs -o %s none %s && exec \"$@\"", options, dir)
		c.Args = append([]string{"unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", c.Path}, c.Args[1:]...)
		c.Path = path
	}
}

// remount the holder's file system.
func (h *held) remount(dir, options string) {
	h.t.Helper()
	out, err := exec.Command("nsenter", "-t", fmt.Sprint(h.pid()), "-m", "mount", "-o", "remount,"+options, dir).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// A pid file that can't be written, for want of room, of inodes, or of the right to,
// costs no reload: it is told once with what to do, what is read is whole always and
// never names a process that is gone, no temporary file stays, and as soon as it can
// be written it names the live one.
func TestPIDFileOnAFullDisk(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(h *held, dir string) (heal func()){
		"no room": func(h *held, dir string) func() {
			filler := h.inside(dir + "/filler")
			err := os.WriteFile(filler, make([]byte, 1<<20), 0o600)
			if err == nil {
				h.t.Error("the disk is not full")
			}
			return func() { os.Remove(filler) }
		},
		"no inode": func(h *held, dir string) func() {
			var all []string
			for n := 0; ; n++ {
				file := h.inside(fmt.Sprintf("%s/filler%d", dir, n))
				if os.WriteFile(file, nil, 0o600) != nil {
					break
				}
				all = append(all, file)
			}
			return func() {
				for _, f := range all {
					os.Remove(f)
				}
			}
		},
		"read-only": func(h *held, dir string) func() {
			h.remount(dir, "ro")
			return func() { h.remount(dir, "rw") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := shortDir(t)
			h := hold(t, onTinyDisk(t, dir, "size=16k,nr_inodes=8"), "--pid-file", dir+"/pid")
			file := h.inside(dir + "/pid")
			pidOf := func(n int) string { return fmt.Sprintln(h.live(n).Live().PID) }
			if b, err := os.ReadFile(file); string(b) != pidOf(1) {
				t.Fatalf("it says %q, %v", b, err)
			}
			first := pidOf(1)
			stop := h.load()
			heal := harm(h, dir)
			h.mustReload()
			if b, err := os.ReadFile(file); err == nil && string(b) != first {
				t.Errorf("it says %q, %v", b, err)
			}
			h.mustReload()
			h.quiet()
			// What named the first may have made room by its going.
			if b, err := os.ReadFile(file); err == nil && name != "read-only" && string(b) != pidOf(3) {
				t.Errorf("it says %q, %v, when what it named is gone", b, err)
			}
			heal()
			third := pidOf(3)
			waitUntil(t, "the live one's pid", func() bool { b, _ := os.ReadFile(file); return string(b) == third })
			stop()
			if n := strings.Count(h.log(), `"event":"pid-file.failed"`); n == 0 || n > 3 {
				t.Errorf("it was told %d times", n)
			}
			if left := names(t, h.inside(dir)); !slices.Equal(left, []string{"pid"}) {
				t.Errorf("left there: %q", left)
			}
		})
	}
}

// Where there is no room for the control socket, run says so and leaves nothing; where
// there is none any more at the end, the socket is removed all the same.
func TestControlSocketOnAFullDisk(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	for _, inodes := range []int{1, 2} { // the directory's own; and one for the lock
		c := exec.Command("gapless", "run", "-l", "127.0.0.1:0", "--control", dir+"/web.sock", "--", "daemon")
		onTinyDisk(t, dir, fmt.Sprintf("size=4k,nr_inodes=%d", inodes))(c)
		c.Args[6] += `; code=$?; ls -A ` + dir + `; exit $code`
		c.Args[6] = strings.Replace(c.Args[6], "exec ", "", 1)
		out, err := c.CombinedOutput()
		if c.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "no space left on device; make room there, or choose another place with --control PATH") {
			t.Errorf("with %d inodes: %v, %s", inodes, err, out)
		}
		if lines := strings.Count(string(out), "\n"); lines != 1 {
			t.Errorf("with %d inodes, something is left: %s", inodes, out)
		}
	}
	var place string
	h := hold(t, func(c *exec.Cmd) {
		place = filepath.Dir(c.Args[slices.Index(c.Args, "--control")+1])
		onTinyDisk(t, place, "size=16k,nr_inodes=8")(c)
	})
	for n := 0; os.WriteFile(h.inside(fmt.Sprintf("%s/filler%d", place, n)), nil, 0o600) == nil; n++ {
	}
	h.mustReload()
	h.quiet()
	at, err := os.Open(h.inside(place)) // to see it when the holder has gone
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	if err := h.client.Shutdown(h.within(), patience); err != nil {
		t.Error(err)
	}
	<-h.ended
	if left, err := at.Readdirnames(-1); err != nil || slices.Contains(left, "web.sock") || len(left) == 0 {
		t.Errorf("left there: %q, %v", left, err)
	}
}
