package headline

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/gapless-dev/gapless/bench"
)

// Servers that nobody prepared: Debian's own, each with the option by which it takes
// a listener from whoever starts it, and its signal for a graceful stop.
func TestDebianServersLoseNothing(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T) subject{
		"gunicorn": gunicorn,
		"haproxy":  haproxy,
		"lighttpd": lighttpd,
		"nginx":    nginx,
		"puma":     puma,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := prepare(t)
			s.name, s.keepAlive = name, loses
			s.underLoad(t, binaries(t), []bench.Load{
				{Kind: bench.PerRequest, Rate: 150},
				{Kind: bench.Pause, Rate: 20},
				{Kind: bench.KeepAlive, Rate: 100},
			})
		})
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// gunicorn takes LISTEN_FDS and checks LISTEN_PID.
func gunicorn(t *testing.T) subject {
	program, dir := need(t, "gunicorn"), t.TempDir()
	write(t, dir, "app.py", `
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "3"), ("X-Generation", os.environ["GAPLESS_GENERATION"])])
    return [b"ok\n"]
`)
	return subject{}.with("--workdir", dir, "--", program, "--workers", "2", "--threads", "8", "app:app")
}

func (s subject) with(run ...string) subject {
	s.run = run
	return s
}

// haproxy is given the number of the descriptor; SIGUSR1 is its soft stop.
func haproxy(t *testing.T) subject {
	program, dir := need(t, "haproxy"), t.TempDir()
	conf := write(t, dir, "haproxy.cfg", `
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 1s
frontend web
  bind fd@3
  http-request return status 200 content-type text/plain string "ok" hdr X-Generation "${GAPLESS_GENERATION}"
`)
	return subject{}.with("--stop-signal", "USR1", "--", program, "-db", "-f", conf)
}

// lighttpd takes LISTEN_FDS; SIGINT is its graceful stop.
func lighttpd(t *testing.T) subject {
	program, dir := need(t, "lighttpd"), t.TempDir()
	write(t, dir, "index.html", "ok\n")
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	conf := write(t, dir, "lighttpd.conf", fmt.Sprintf(`
server.modules = ("mod_setenv")
server.document-root = %q
server.bind = "127.0.0.1"
server.port = %s
server.systemd-socket-activation = "enable"
index-file.names = ("index.html")
setenv.add-response-header = ("X-Generation" => env.GAPLESS_GENERATION)
`, dir, address[len("127.0.0.1:"):]))
	return subject{address: address}.with("--stop-signal", "INT", "--", program, "-D", "-f", conf)
}

// nginx takes the listeners that its NGINX variable names, as from an older nginx,
// which would have made them non-blocking: as it doesn't look, a worker would be
// stuck in accept(2) where the other was quicker. SIGQUIT is its graceful stop. Its
// configuration can't read the environment, so a shell writes the generation into it
// and becomes nginx.
func nginx(t *testing.T) subject {
	program, dir := need(t, "nginx"), t.TempDir()
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	write(t, dir, "nginx.conf", fmt.Sprintf(`
daemon off;
worker_processes 2;
error_log stderr;
events { worker_connections 512; }
http {
  access_log off;
  server {
    listen %s;
    location / { add_header X-Generation GENERATION; return 200 "ok\n"; }
  }
}
`, address))
	script := fmt.Sprintf(`cd %s && sed "s/GENERATION/$GAPLESS_GENERATION/" nginx.conf >nginx.$GAPLESS_GENERATION.conf &&
exec %s -p %s -c nginx.$GAPLESS_GENERATION.conf -g "pid nginx.$GAPLESS_GENERATION.pid;" -e stderr`, dir, program, dir)
	return subject{address: address}.with("-E", "NGINX=3:", "--non-blocking", "--stop-signal", "QUIT", "--", "sh", "-c", script)
}

// puma takes LISTEN_FDS for an address that it was told to bind.
func puma(t *testing.T) subject {
	program, dir := need(t, "puma"), t.TempDir()
	conf := write(t, dir, "config.ru", `
run ->(env) { [200, {"Content-Type" => "text/plain", "Content-Length" => "3", "X-Generation" => ENV["GAPLESS_GENERATION"]}, ["ok\n"]] }
`)
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	return subject{address: address}.with("--workdir", dir, "--", program, "-b", "tcp://"+address, "-e", "production", conf)
}
