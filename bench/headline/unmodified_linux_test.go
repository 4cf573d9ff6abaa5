package headline

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/bench/rig"
)

// unmodified is a server that nobody has prepared: with the configuration that its
// documentation begins with, and its own stop signal where that is another than TERM.
type unmodified struct {
	name string
	// version is a command that prints it.
	version []string
	// flags of `gapless run`, and the command: PORT stands for the port. It runs in the
	// directory of its release.
	flags, command []string
	// build makes what the command needs into OUT, the directory above the releases.
	build []string
	// files are what a release consists of, beside index.html, which has its number in it.
	files map[string]string
	// listens is what -l says; if it is empty, there is none.
	listens string
	// hosts that its clients connect to; 127.0.0.1 by default.
	hosts []string
	// sequential: it serves one client after the other, so a slow one is everybody's.
	sequential bool
	speak      func(net.Conn) (string, error) // instead of HTTP
	// how it is to get its socket: keep, replace or listen-fds.
	how  string
	note string // for readers
}

// Servers that know nothing of gapless, with ordinary configurations: they are replaced
// under load, and no client notices, every generation answers, and nothing of them is
// left. With -v -parallel 1 it prints the table of the README.
func TestUnmodifiedServersLoseNothing(t *testing.T) {
	b := binaries(t)
	all := slices.Concat(debianServers(), scriptServers(), compiledServers())
	rows := make([]string, len(all))
	t.Cleanup(func() {
		there := slices.DeleteFunc(rows, func(row string) bool { return row == "" })
		t.Logf("servers and what their clients saw:\n%s\n%s", tableHead, strings.Join(there, "\n"))
	})
	for i, u := range all {
		t.Run(u.name, func(t *testing.T) {
			t.Parallel()
			need(t, u.version[0])
			rows[i] = u.test(t, b)
		})
	}
}

// trial is a run of one of them.
type trial struct {
	unmodified
	dir  string // of the releases
	port int
	h    *rig.Holder
	seen family            // all processes that were ever seen
	pids map[string]string // generations by what memcached says of itself
}

// unmodifiedReloads is how often each is replaced.
var unmodifiedReloads = rounds(5, 10)

func (u unmodified) test(t *testing.T, b rig.Binaries) string {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r := &trial{unmodified: u, dir: releases(t, b), port: freePort(t), seen: family{}, pids: map[string]string{}}
	r.make(t, ctx)
	for n := 1; n <= unmodifiedReloads+1; n++ {
		r.release(t, n)
	}
	r.deploy(t, 1)
	r.hold(t, b)
	results := during(t, ctx, r.loads(), func() { r.reloadAll(t, ctx) })
	st := r.drained(t, ctx)
	r.renumber(results...)
	r.judge(t, results)
	r.judgeGenerations(t, st)
	how := r.judgeDelivery(t)
	row := r.row(t, how, results)
	r.end(t)
	return row
}

// releases is a directory that servers which change their user may read, too.
func releases(t *testing.T, b rig.Binaries) string {
	t.Helper()
	dir, err := os.MkdirTemp(b.Dir, "releases-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (r *trial) make(t *testing.T, ctx context.Context) {
	t.Helper()
	if len(r.build) == 0 {
		return
	}
	need(t, r.build[0])
	args := slices.Clone(r.build)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "OUT", r.dir)
	}
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("can't build it: %v\n%s", err, out)
	}
}

// release writes the n-th one.
func (r *trial) release(t *testing.T, n int) {
	t.Helper()
	dir := filepath.Join(r.dir, strconv.Itoa(n))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "index.html", fmt.Sprintln(n))
	for name, text := range r.files {
		write(t, dir, name, r.fill(text))
	}
}

func (r *trial) fill(text string) string {
	return strings.ReplaceAll(text, "PORT", strconv.Itoa(r.port))
}

func (r *trial) fillAll(texts []string) (all []string) {
	for _, text := range texts {
		all = append(all, r.fill(text))
	}
	return all
}

// deploy makes the n-th release the current one, as tools for that do.
func (r *trial) deploy(t *testing.T, n int) {
	t.Helper()
	next := filepath.Join(r.dir, "next")
	if err := os.Symlink(strconv.Itoa(n), next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(r.dir, "current")); err != nil {
		t.Fatal(err)
	}
}

func (r *trial) hold(t *testing.T, b rig.Binaries) {
	t.Helper()
	args := []string{"--log-level", "debug", "--log-format", "json", "--max-draining", strconv.Itoa(unmodifiedReloads + 1), "--workdir", filepath.Join(r.dir, "current")}
	args = append(append(append(append(args, r.fillAll(r.spec())...), r.flags...), "--"), r.fillAll(r.command)...)
	h, err := b.Run(t.Context(), rig.Options{Name: "web", Args: args, Env: []string{"HOME=" + r.dir}})
	if err != nil {
		t.Fatal(err)
	}
	r.h = h
	t.Cleanup(func() {
		if err := h.End(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the holder's log:\n%s", tail(h.Log(), 80))
		}
	})
}

func (u unmodified) spec() []string {
	if u.listens == "" {
		return nil
	}
	return []string{"-l", "http=" + u.listens}
}
