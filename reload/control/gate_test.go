package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/reload"
)

// idle is a service that answers at once, but a reload only once goOn is closed.
func idle(goOn chan struct{}) *fake {
	return &fake{
		status: func(context.Context) (reload.Status, error) { return reload.Status{HolderPID: 1}, nil },
		reload: func(ctx context.Context, _ reload.ReloadOptions) (reload.Result, error) {
			select {
			case <-goOn:
			case <-ctx.Done():
			}
			return reload.Result{Generation: 2}, nil
		},
	}
}

// connect is a client that has sent so much.
func connect(t *testing.T, c *Client, sent string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", c.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, sent) // it may be refused before it has sent all
	return conn
}

// mustAnswer an honest client.
func mustAnswer(t *testing.T, c *Client) {
	t.Helper()
	if s, err := c.Status(within(t)); err != nil || s.HolderPID != 1 {
		t.Errorf("an honest client got %+v, %v", s, err)
	}
}

// Clients that misbehave are rid of in a bounded time, whatever they do, and others
// are answered meanwhile.
func TestMisbehavingClients(t *testing.T) {
	const post = "POST /v1/reload HTTP/1.1\r\nHost: x\r\n"
	for name, sent := range map[string]string{
		"says nothing":             "",
		"half a header":            "GET /v1/status HTTP/1.1\r\nHos",
		"garbage":                  strings.Repeat("\x00\xff\r\n\r\n", 100),
		"a huge header":            "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2<<20),
		"a body that does not end": post + "Content-Length: 100\r\n\r\n{",
		"a huge body":              post + "Content-Length: 9000000\r\n\r\n" + strings.Repeat(" ", 2<<20),
		"a body where none is due": "GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
		"nothing more after one":   "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
		"a body of no JSON":        post + "Connection: close\r\nContent-Length: 3\r\n\r\n{{{",
		"another protocol":         "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, idle(nil), Options{})
			conn := connect(t, c, sent)
			mustAnswer(t, c)
			_, err := io.Copy(io.Discard, conn)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("it is still connected")
			}
			mustAnswer(t, c)
		})
	}
}

// A byte a second keeps nobody waiting for the rest.
func TestTricklingClient(t *testing.T) {
	t.Parallel()
	c := serve(t, idle(nil), Options{})
	conn := connect(t, c, "POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
	ended := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, conn); ended <- err }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("it is still connected")
			}
			return
		case <-tick.C:
			conn.Write([]byte(" "))
		}
	}
}

// One that asks and asks, and reads no answer, is given up.
func TestClientThatReadsNothing(t *testing.T) {
	t.Parallel()
	c := serve(t, idle(nil), Options{})
	conn := connect(t, c, "")
	asked := strings.Repeat("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 100)
	for {
		_, err := io.WriteString(conn, asked)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("it is still connected")
		}
		if err != nil {
			break
		}
	}
	mustAnswer(t, c)
}

// Of clients that ask for nothing only so many are kept, the newest; the honest one
// gets in between them.
func TestCrowdThatAsksNothing(t *testing.T) {
	t.Parallel()
	c := serve(t, idle(nil), Options{Clients: 8})
	var crowd []net.Conn
	for range 24 {
		crowd = append(crowd, connect(t, c, "GET"))
	}
	mustAnswer(t, c)
	if _, err := crowd[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the oldest is still there: %v", err)
	}
}

// Those that wait for the daemon leave room for others, and followers for both; one
// too many is told so.
func TestCrowdThatWaits(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	c := serve(t, idle(goOn), Options{Clients: 16})
	follower := crowdOf(t, c, 20, 8, "GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	waiter := crowdOf(t, c, 20, 4, "POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	mustAnswer(t, c)
	_, err := c.Reload(within(t), ReloadOptions{})
	wantFailure(t, err, reload.CodeBusy, "4 clients wait for it like this already")
	for _, err := range c.Events(within(t), true) {
		wantFailure(t, err, reload.CodeBusy, "8 clients wait for it like this already")
	}
	close(goOn)
	for _, status := range []<-chan int{follower, waiter} {
		for s := range status {
			if s != http.StatusOK {
				t.Errorf("one that had a place was answered with %d", s)
			}
		}
	}
}

// crowdOf clients all ask; it returns when all but those that have a place are refused.
func crowdOf(t *testing.T, c *Client, n, places int, ask string) (rest <-chan int) {
	t.Helper()
	all, answers := make(chan int, n), make(chan int, n)
	var clients sync.WaitGroup
	for range n {
		conn := connect(t, c, ask)
		clients.Go(func() {
			if r, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				all <- r.StatusCode // the stream of a follower has no end
			}
		})
	}
	go func() { clients.Wait(); close(all) }()
	refused := 0
	for refused < n-places {
		if s := <-all; s == http.StatusServiceUnavailable {
			refused++
		} else {
			answers <- s
		}
	}
	go func() {
		defer close(answers)
		for s := range all {
			answers <- s
		}
	}()
	return answers
}

// A thousand of each kind at once.
func TestCrowds(t *testing.T) {
	t.Parallel()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 4000 {
		t.Skipf("needs 4000 descriptors, RLIMIT_NOFILE is %d (%v)", limit.Cur, err)
	}
	for i, sent := range []string{"", "GET /v1/sta", "\x00\r\n\r\n", "POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
		"GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n", "POST /v1/reload HTTP/1.1\r\nHost: x\r\n\r\n"} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			goOn := make(chan struct{})
			defer close(goOn)
			c := serve(t, idle(goOn), Options{})
			var crowd sync.WaitGroup
			for range 1000 {
				crowd.Go(func() {
					if conn, err := net.Dial("unix", c.path); err == nil {
						t.Cleanup(func() { conn.Close() })
						io.WriteString(conn, sent)
					}
				})
			}
			crowd.Wait()
			began := time.Now()
			mustAnswer(t, c)
			t.Logf("an honest client was answered after %s", time.Since(began))
		})
	}
}
