package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload"
)

// A daemon has stopped accepting, and fifty clients wait in its queue: when it is gone, by
// whatever means, the next generation serves them all, by way of the relay.
func TestQueueOfADeadGenerationIsServed(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(pid int){
		"is killed":  func(pid int) { syscall.Kill(pid, syscall.SIGKILL) },
		"has a hang": nil, // it does not hear the stop signal, and is killed in the end
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := hold(t, nil, "--drain", "connections", "--drain-timeout", "1s", "--stop-timeout", "1s")
			pid := h.live(1).Live().PID
			freeze(t, pid)
			const clients = 50
			answers := make(chan error, clients)
			for range clients {
				c := h.ask()
				go func() { answers <- answeredBy(c, "generation 2") }()
			}
			h.status("the queue", func(s reload.Status) bool { return s.MeasuredOf(*s.Generation(1)).Queue == clients })
			h.mustReload()
			if end != nil {
				end(pid)
			}
			for range clients {
				if err := <-answers; err != nil {
					t.Errorf("a client: %v", err)
				}
			}
			if s := h.quiet(); s.Relayed != clients || s.Generation(1).Exit != "killed by SIGKILL" {
				t.Errorf("%d were relayed; generation 1: %s", s.Relayed, s.Generation(1).Exit)
			}
			if end == nil && !strings.Contains(h.log(), "generation 1 still has 50 connections after 1s") {
				t.Error("who waited in its queue was not waited for")
			}
		})
	}
}

// freeze a process; when it returns all of its threads have stopped.
func freeze(t *testing.T, pid int) {
	t.Helper()
	syscall.Kill(pid, syscall.SIGSTOP)
	waitUntil(t, "the daemon to stop", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, stat := range threads {
			if b, err := os.ReadFile(stat); err == nil && !bytes.Contains(b, []byte(") T ")) {
				return false
			}
		}
		return len(threads) > 0
	})
}

// ask is a client that has sent its request.
func (h *held) ask() net.Conn {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		h.t.Fatal(err)
	}
	return c
}

func answeredBy(c net.Conn, who string) error {
	defer c.Close()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(r.Body)
	if err == nil && string(body) != who {
		err = fmt.Errorf("answered by %q", body)
	}
	return err
}
