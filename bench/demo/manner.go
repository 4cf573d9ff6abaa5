package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/gapless-dev/gapless/bench/rig"
)

// manner is a way to replace a server that runs. Whoever has one must end it.
type manner struct {
	verb    string // plain restart, gapless reload
	how     string
	addr    string
	gapless bool
	replace func(context.Context) error
	end     func() error
}

// restart is what systemctl restart does: SIGTERM, wait for the end, start again.
func restart(ctx context.Context, s server) (manner, error) {
	addr, err := freeAddr()
	if err != nil {
		return manner{}, err
	}
	p := &process{command: s.binding(addr), env: s.env}
	m := manner{
		verb: "plain restart", how: "SIGTERM, wait until it has ended, start again", addr: addr,
		end: p.stop,
		replace: func(context.Context) error {
			if err := p.stop(); err != nil {
				return err
			}
			return p.start()
		},
	}
	if err := p.start(); err != nil {
		return m, err
	}
	if err := listens(ctx, addr); err != nil {
		return m, errors.Join(err, p.stop())
	}
	return m, nil
}

// reload is the same server under gapless.
func reload(ctx context.Context, s server, bin rig.Binaries) (manner, error) {
	args := append([]string{"-l", "http=127.0.0.1:0", "--"}, s.inheriting...)
	h, err := bin.Run(ctx, rig.Options{Name: "web", Args: args, Env: s.env})
	if err != nil {
		return manner{}, err
	}
	st, err := h.Status(ctx)
	if err != nil {
		return manner{}, errors.Join(err, h.End())
	}
	return manner{verb: "gapless reload", how: "the same server under gapless run", addr: st.Addr("http"), gapless: true, replace: h.Reload, end: h.End}, nil
}

// process is the server without gapless.
type process struct {
	command, env []string
	cmd          *exec.Cmd // nil: it does not run
}

func (p *process) start() error {
	p.cmd = exec.Command(p.command[0], p.command[1:]...)
	p.cmd.Env = append(os.Environ(), p.env...)
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return fmt.Errorf("can't start the server: %w", err)
	}
	return nil
}

// stop waits for the end; how it ended does not matter.
func (p *process) stop() error {
	if p.cmd == nil {
		return nil
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	impatient := time.AfterFunc(startTime, func() { p.cmd.Process.Kill() })
	defer impatient.Stop()
	var ended *exec.ExitError
	err := p.cmd.Wait()
	p.cmd = nil
	if err != nil && !errors.As(err, &ended) {
		return fmt.Errorf("can't wait for the server: %w", err)
	}
	return nil
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("can't find a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// listens waits until somebody does.
func listens(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server does not listen on %s: %w", addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
