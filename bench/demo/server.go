package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gapless-dev/gapless/bench"
	"github.com/gapless-dev/gapless/bench/rig"
)

// server is one to be replaced, and the load that it can bear.
type server struct {
	name  string
	times int // that it is replaced
	// binding is its command when it binds an address itself, inheriting when it is
	// given a listener.
	binding    func(addr string) []string
	inheriting []string
	env        []string
	loads      []bench.Load
}

// ourServer is as most servers in Go are: http.Server, and Shutdown on SIGTERM. It
// knows nothing of gapless, and takes 300 ms to start.
func ourServer(bin rig.Binaries) server {
	command := []string{bin.Daemon, "-style", "plain", "-start", "300ms"}
	return server{
		name:       "Go http.Server",
		times:      5,
		binding:    func(addr string) []string { return append(command[:len(command):len(command)], "-listen", addr) },
		inheriting: command,
		loads: []bench.Load{
			{Name: "new connection each", Kind: bench.PerRequest, Rate: 300},
			{Name: "answers take 300 ms", Kind: bench.Slow, Rate: 20},
			{Name: "kept-alive connections", Kind: bench.KeepAlive, Rate: 100},
		},
	}
}

const app = `import os, time
who = os.environ.get("GAPLESS_GENERATION") or str(os.getppid())
def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.3)
    body = who.encode() + b"\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("X-Generation", who)])
    return [body]
`

// gunicornServer takes LISTEN_FDS too; its kept-alive connections are its own affair.
func gunicornServer(path, dir string) (server, error) {
	if err := os.WriteFile(filepath.Join(dir, "app.py"), []byte(app), 0o600); err != nil {
		return server{}, fmt.Errorf("can't write gunicorn's application: %w", err)
	}
	command := []string{path, "--chdir", dir, "--threads", "16", "--log-level", "critical", "--worker-tmp-dir", dir}
	return server{
		name:       "gunicorn",
		times:      3,
		binding:    func(addr string) []string { return append(command[:len(command):len(command)], "-b", addr, "app:app") },
		inheriting: append(command[:len(command):len(command)], "app:app"),
		env:        []string{"PYTHONDONTWRITEBYTECODE=1"},
		loads: []bench.Load{
			{Name: "new connection each", Kind: bench.PerRequest, Rate: 100},
			{Name: "answers take 300 ms", Kind: bench.Slow, Rate: 10},
		},
	}, nil
}

// startTime is more than any of them needs.
const startTime = 20 * time.Second
