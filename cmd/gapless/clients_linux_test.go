package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gapless-dev/gapless/reload"
)

// connect is a client of the control socket that has sent so much and stays.
func (h *held) connect(sent string) (net.Conn, error) {
	c, err := net.Dial("unix", filepath.Join(h.dir, "web.sock"))
	if err == nil {
		io.WriteString(c, sent)
	}
	return c, err
}

// clients are those that the holder has let in: their sockets at its end are called as
// the one that it listens at.
func (h *held) clients() int {
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.Count(string(b), h.dir) - 1
}

// A thousand clients that ask nothing, and a thousand that follow and read nothing,
// leave the holder the descriptors that a reload needs: whoever asks is answered within
// seconds, no request fails, and when they have gone nothing is left of them.
func TestReloadInACrowd(t *testing.T) {
	t.Parallel()
	h := hold(t, nil)
	h.mustReload()
	h.quiet()
	h.limit(1024)
	files := h.settledFiles()
	h.load()
	for _, sent := range []string{"", "GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n"} {
		conns := make(chan net.Conn, 1000)
		var crowd sync.WaitGroup
		for range cap(conns) {
			crowd.Go(func() {
				c, err := h.connect(sent)
				if err != nil {
					t.Errorf("a client of the crowd: %v", err)
					return
				}
				conns <- c
			})
		}
		crowd.Wait()
		close(conns)
		for range 3 {
			h.mustReload()
		}
		if n := h.files(); n > files+200 {
			t.Errorf("%d descriptors are open, %d without the crowd", n, files)
		}
		for c := range conns {
			c.Close()
		}
		waitUntil(t, "the end of the crowd", func() bool { return h.clients() == 0 })
		h.quiet()
	}
	h.mustReload() // reloads that overlap leave placeholders, which go with the next
	h.quiet()
	h.mustBeAsBefore(files)
}

// A client that vanishes has asked all the same.
func TestClientVanishesDuringItsReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	what, ready := filepath.Join(dir, "what"), filepath.Join(dir, "ready")
	mustWrite(t, what, "until "+ready)
	mustWrite(t, ready, "")
	h := hold(t, nil, "--", "daemon", "from", what)
	mustWrite(t, what, "until "+ready+"2")
	c, err := h.connect("POST /v1/reload HTTP/1.1\r\nHost: x\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	h.status("the candidate", func(s reload.Status) bool { return s.Generation(2) != nil })
	c.Close()
	mustWrite(t, ready+"2", "")
	h.live(2)
}
