package reload

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// load is two clients in a closed loop, each request on a connection of its own.
// None may fail until stop, which waits for them and tells which generations
// answered.
func (f *fixture) load() (stop func() map[string]int) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	var clients sync.WaitGroup
	seen := []map[string]int{{}, {}}
	for _, s := range seen {
		clients.Go(func() { f.client(ctx, s) })
	}
	stop = sync.OnceValue(func() map[string]int {
		cancel()
		clients.Wait()
		all := map[string]int{}
		for _, s := range seen {
			for generation, n := range s {
				all[generation] += n
			}
		}
		if len(all) == 0 {
			f.t.Error("no client was answered")
		}
		return all
	})
	f.t.Cleanup(func() { stop() })
	return stop
}

// client goes on until ctx ends; the request under way then is finished.
func (f *fixture) client(ctx context.Context, seen map[string]int) {
	pace := time.NewTicker(5 * time.Millisecond) // to leave some of the processor to others
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		body, err := request("http://" + f.Addrs()[0].Addr + "/")
		generation, _, whole := strings.Cut(body, " ")
		if err != nil || !whole {
			f.t.Errorf("a client failed: %q, %v", body, err)
		}
		seen[generation]++
	}
}

// patience of a client is more than any test takes.
const patience = 30 * time.Second

func request(url string) (string, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return strings.TrimSpace(string(b)), err
}

// stream is a request that the daemon never ends; it is answered by a generation.
func (f *fixture) stream() (c net.Conn, generation string) {
	f.t.Helper()
	c, err := net.Dial("tcp", f.Addrs()[0].Addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		f.t.Fatal(err)
	}
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			f.t.Fatal(err)
		}
		if number, ok := strings.CutSuffix(line, " begins\n"); ok {
			return c, number
		}
	}
}

// failure of a request, of which it must be one.
func failure(t *testing.T, err error) *Failure {
	t.Helper()
	var f *Failure
	if !errors.As(err, &f) {
		t.Fatalf("not a failure: %v", err)
	}
	return f
}

// write a file of a test.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// happened tells whether an event of the kind has.
func (f *fixture) happened(kind string) func(Status) bool {
	return func(Status) bool {
		events, _, err := f.Events(f.t.Context(), false)
		for _, e := range events {
			if e.Kind == kind {
				return true
			}
		}
		return err != nil
	}
}

// mustEvents are those so far.
func (f *fixture) mustEvents() []Event {
	f.t.Helper()
	events, _, err := f.Events(f.t.Context(), false)
	if err != nil {
		f.t.Fatal(err)
	}
	return events
}
