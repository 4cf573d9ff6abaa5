package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/proxy"
)

const (
	relayTime  = 10 * time.Minute // the longest that a worker serves
	relayChunk = 1024             // clients in one message
	relayDial  = 10 * time.Second
)

// relayer hands clients that no daemon can accept any more to a process of its own,
// so that no client's byte passes through the holder. The worker ends by itself,
// with its last connection; it outlives the holder if it must.
type relayer struct {
	self string
	log  zerolog.Logger
}

// relay returns when the worker has the clients; to is the public address.
func (r relayer) relay(ctx context.Context, to string, clients []handoff.File) error {
	defer func() { handoff.CloseFiles(clients) }() // those that were not sent
	conn, child, err := handoff.Pair()
	if err != nil {
		return fmt.Errorf("can't relay %d clients: %w", len(clients), err)
	}
	defer conn.Close()
	cmd := exec.Command(r.self, relayVerb, to)
	cmd.Env = []string{} // not nil, which would be all of the holder's
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{child}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	child.Close()
	if err != nil {
		return fmt.Errorf("can't relay %d clients: %w", len(clients), err)
	}
	go r.wait(cmd, to)
	for len(clients) > 0 {
		n := min(len(clients), relayChunk)
		if err := handoff.Send(ctx, conn, handoff.Message{Files: clients[:n]}); err != nil {
			return fmt.Errorf("can't relay %d clients: %w", len(clients), err)
		}
		handoff.CloseFiles(clients[:n])
		clients = clients[n:]
	}
	return nil
}

// wait reaps the worker; it is not waited for when the holder ends.
func (r relayer) wait(cmd *exec.Cmd, to string) {
	if err := cmd.Wait(); err != nil {
		r.log.Warn().Err(err).Str("event", "relay.failed").Str("address", to).Msg("some clients that waited in an old listener could not be served")
	}
}

// relayWorker is the worker's main: it serves what comes over fd 3.
func relayWorker(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "gapless: this sub-command is for gapless itself")
		return codeUsage
	}
	ctx, cancel := context.WithTimeout(context.Background(), relayTime)
	defer cancel()
	clients, err := receiveClients(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gapless: relay:", err)
	}
	served := proxy.Relay(ctx, clients, func(ctx context.Context, client net.Conn) (net.Conn, error) {
		return dialFor(ctx, client.LocalAddr(), args[0])
	})
	if err != nil || served < len(clients) {
		return codeFailed
	}
	return codeDone
}

// dialFor connects to the public address; where that is a wildcard, which means the
// loopback to connect(2), to the one that the client has reached, if it is served: else a
// daemon would take somebody from far for one of this machine's, and might trust them.
func dialFor(ctx context.Context, reached net.Addr, to string) (net.Conn, error) {
	d := net.Dialer{Timeout: relayDial}
	at, err := netip.ParseAddrPort(to)
	if tcp, ok := reached.(*net.TCPAddr); ok && err == nil && at.Addr().IsUnspecified() {
		host := tcp.AddrPort().Addr().Unmap()
		if c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(host, at.Port()).String()); err == nil {
			return c, nil
		}
	}
	return d.DialContext(ctx, "tcp", to)
}

// receiveClients reads until the holder has sent all.
func receiveClients(ctx context.Context) ([]net.Conn, error) {
	f := os.NewFile(3, "holder")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("can't talk to the holder: %w", err)
	}
	defer c.Close()
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("fd 3 is not the holder's")
	}
	var clients []net.Conn
	for {
		m, err := handoff.Receive(ctx, conn, handoff.Limit{Files: relayChunk})
		if errors.Is(err, io.EOF) {
			return clients, nil
		}
		if err != nil {
			return clients, err
		}
		for _, file := range m.Files {
			if client, err := connOf(file); err == nil {
				clients = append(clients, client)
			}
		}
	}
}

// connOf owns the descriptor from here on.
func connOf(file handoff.File) (net.Conn, error) {
	f := os.NewFile(uintptr(file.FD), file.Name)
	defer f.Close()
	return net.FileConn(f)
}
