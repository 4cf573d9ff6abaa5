// Command demo shows what clients see when a server is replaced: first by a plain
// restart, then by a reload under gapless. It builds the command and a test server,
// puts the same load on both and prints a table. It takes less than half a minute,
// listens on free ports of the loopback only, and needs nothing but Go; if gunicorn
// is installed it is shown too.
//
// It owns all that it starts, in a temporary directory, and has ended and removed it
// when it returns, on Ctrl-C too. Its exit status is 0 unless gapless lost a request,
// or the demo could not be run.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/gapless-dev/gapless/bench/rig"
)

// longest bounds a demo on the slowest of machines, less the build.
const longest = 3 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lost, err := demo(ctx, newScreen(os.Stdout))
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "demo: interrupted; everything it had started has been stopped")
		stop()
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	case lost > 0:
		os.Exit(1)
	}
}

// demo returns how many requests gapless lost.
func demo(ctx context.Context, out *screen) (int, error) {
	dir, err := os.MkdirTemp("", "gapless-demo-")
	if err != nil {
		return 0, fmt.Errorf("can't make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	out.say("Building the gapless command and a test server ...")
	bin, err := rig.Build(ctx, dir, false)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	servers, note, err := servers(bin, dir)
	if err != nil {
		return 0, err
	}
	rows, err := compare(ctx, out, bin, servers)
	if err != nil {
		return 0, err
	}
	out.table(rows)
	return out.verdict(rows, note), nil
}

// servers are those to be shown: ours always, gunicorn where it is installed.
func servers(bin rig.Binaries, dir string) ([]server, string, error) {
	all := []server{ourServer(bin)}
	gunicorn, err := exec.LookPath("gunicorn")
	if errors.Is(err, exec.ErrNotFound) {
		return all, "gunicorn is not installed, so it is not shown.", nil
	}
	if err != nil {
		return all, "", fmt.Errorf("can't look for gunicorn: %w", err)
	}
	other, err := gunicornServer(gunicorn, dir)
	return append(all, other), "", err
}

// compare replaces each server in both ways.
func compare(ctx context.Context, out *screen, bin rig.Binaries, servers []server) ([]row, error) {
	var rows []row
	for _, s := range servers {
		for _, begin := range []func() (manner, error){
			func() (manner, error) { return restart(ctx, s) },
			func() (manner, error) { return reload(ctx, s, bin) },
		} {
			m, err := begin()
			if err != nil {
				return nil, err
			}
			shown, err := show(ctx, out, s, m)
			if err := errors.Join(err, m.end()); err != nil {
				return nil, err
			}
			rows = append(rows, shown...)
		}
	}
	return rows, nil
}
