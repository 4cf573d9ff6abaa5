package headline

import (
	"bufio"
	"fmt"
	"net"
	"strings"
)

const listenFDs = "listen-fds"

// debianServers are programs that are told by a file where to listen.
func debianServers() []unmodified {
	const loopback = "127.0.0.1:PORT"
	return []unmodified{
		plainNginx("nginx", 1, ""),
		plainNginx("nginx, 3 workers", 3, ""),
		plainNginx("nginx, `reuseport`, 3 workers", 3, " reuseport"),
		{
			name: "lighttpd", version: []string{"lighttpd", "-v"}, listens: loopback, how: "keep",
			flags: []string{"--stop-signal", "INT"}, command: []string{"lighttpd", "-D", "-f", "lighttpd.conf"},
			files: map[string]string{"lighttpd.conf": `
server.document-root = var.CWD
server.bind = "127.0.0.1"
server.port = PORT
index-file.names = ("index.html")
`},
		},
		{
			name: "HAProxy", version: []string{"haproxy", "-v"}, listens: loopback, how: "keep",
			flags: []string{"--stop-signal", "USR1"}, command: []string{"haproxy", "-db", "-f", "haproxy.cfg"},
			files: map[string]string{"haproxy.cfg": `
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 1s
frontend web
  bind 127.0.0.1:PORT
  http-request return status 200 content-type text/plain string "ok" hdr X-Generation "${GAPLESS_GENERATION}"
`},
		},
		{
			name: "Caddy", version: []string{"caddy", "version"}, listens: "PORT", hosts: bothFamilies(), how: "keep",
			command: []string{"caddy", "run", "--config", "Caddyfile"},
			files: map[string]string{"Caddyfile": `
:PORT {
	header X-Generation {env.GAPLESS_GENERATION}
	respond "ok"
}
`},
		},
		{
			name: "memcached", version: []string{"memcached", "-V"}, listens: loopback, how: "keep", speak: memcached,
			command: []string{"memcached", "-l", "127.0.0.1", "-p", "PORT", "-u", "nobody"},
			note:    "each generation begins empty",
		},
	}
}

func bothFamilies() []string { return []string{"127.0.0.1", "::1"} }

// plainNginx stays in the foreground, which its unit file of most systems asks for, too.
func plainNginx(name string, workers int, option string) unmodified {
	return unmodified{
		name: name, version: []string{"nginx", "-v"}, listens: "127.0.0.1:PORT", how: "keep",
		flags: []string{"--stop-signal", "QUIT"}, command: []string{"nginx", "-p", ".", "-c", "nginx.conf", "-e", "stderr"},
		files: map[string]string{"nginx.conf": fmt.Sprintf(`
daemon off;
worker_processes %d;
pid nginx.pid;
error_log stderr;
events { worker_connections 512; }
http {
  access_log off;
  server {
    listen 127.0.0.1:PORT%s;
    root .;
  }
}
`, workers, option)},
	}
}

// memcached speaks its text protocol (doc/protocol.txt): what is set is there, and who
// has it is known by its pid.
func memcached(conn net.Conn) (string, error) {
	const value = "does it come back"
	if _, err := fmt.Fprintf(conn, "set key 0 60 %d\r\n%s\r\nget key\r\nstats\r\nquit\r\n", len(value), value); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	for _, want := range []string{"STORED", fmt.Sprint("VALUE key 0 ", len(value)), value, "END"} {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if strings.TrimRight(line, "\r\n") != want {
			return "", fmt.Errorf("%q instead of %q", line, want)
		}
	}
	return memcachedPID(r)
}

func memcachedPID(r *bufio.Reader) (pid string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "END" {
			return pid, nil
		}
		if number, ok := strings.CutPrefix(line, "STAT pid "); ok {
			pid = "pid " + number
		}
	}
}

// scriptServers are what the languages bring, or Debian's servers for their programs.
func scriptServers() []unmodified {
	const python = "/usr/bin/python3"
	rack := map[string]string{"config.ru": `
run ->(env) { [200, {"Content-Type" => "text/plain", "Content-Length" => "3", "X-Generation" => ENV["GAPLESS_GENERATION"]}, ["ok\n"]] }
`}
	wsgi := map[string]string{"app.py": `
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "3"), ("X-Generation", os.environ["GAPLESS_GENERATION"])])
    return [b"ok\n"]
`}
	puma := unmodified{name: "puma", version: []string{"puma", "--version"}, listens: "127.0.0.1:PORT", how: listenFDs,
		command: []string{"puma", "-b", "tcp://127.0.0.1:PORT"}, files: rack}
	gunicorn := unmodified{name: "gunicorn", version: []string{"gunicorn", "--version"}, listens: "127.0.0.1:PORT", how: listenFDs, sequential: true,
		command: []string{"gunicorn", "-b", "127.0.0.1:PORT", "app:app"}, files: wsgi}
	return []unmodified{
		{
			name: "Python http.server", version: []string{python, "-V"}, listens: "127.0.0.1:PORT", how: "keep",
			command: []string{python, "-m", "http.server", "-b", "127.0.0.1", "PORT"},
		},
		{
			name: "Python http.server, without `-l`", version: []string{python, "-V"}, how: "keep",
			command: []string{python, "-m", "http.server", "PORT"},
		},
		node("Node http", `
require("http").createServer((request, response) => {
  response.setHeader("X-Generation", process.env.GAPLESS_GENERATION);
  response.end("ok\n");
}).listen(PORT);
`),
		node("Node cluster, 2 workers", `
const cluster = require("cluster");
if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
} else {
  require("http").createServer((request, response) => {
    response.setHeader("X-Generation", process.env.GAPLESS_GENERATION);
    response.end("ok\n");
  }).listen(PORT);
}
`),
		{
			name: "Ruby WEBrick", version: []string{"ruby", "-rwebrick", "-e", "puts WEBrick::VERSION"}, listens: "127.0.0.1:PORT", how: "keep",
			command: []string{"ruby", "-run", "-e", "httpd", "--", "--bind-address=127.0.0.1", "--port=PORT", "."},
		},
		puma, puma.byBind(),
		gunicorn, gunicorn.byBind(),
	}
}

// byBind is the same without the listeners that it would take.
func (u unmodified) byBind() unmodified {
	u.name += ", by bind"
	u.flags, u.how = append(u.flags, "--delivery", "bind"), "keep"
	return u
}

// node listens where it does by default: at all addresses of both families.
func node(name, text string) unmodified {
	return unmodified{
		name: name, version: []string{"node", "-v"}, listens: "PORT", hosts: bothFamilies(), how: "keep",
		command: []string{"node", "server.js"}, files: map[string]string{"server.js": text},
	}
}

// compiledServers are built beside their releases.
func compiledServers() []unmodified {
	return []unmodified{
		{
			name: "Go net/http, static", version: []string{"go", "version"}, listens: "PORT", hosts: bothFamilies(), how: "keep",
			command: []string{"../plain", ":PORT"}, build: []string{"env", "CGO_ENABLED=0", "go", "build", "-o", "OUT/plain", "testdata/plain/main.go"},
			note: "no signal handling",
		},
		{
			name: "Java com.sun.net.httpserver", version: []string{"java", "-version"}, listens: "PORT", hosts: bothFamilies(), how: "keep",
			command: []string{"java", "-cp", "..", "Server", "PORT"}, build: []string{"javac", "-d", "OUT", "testdata/Server.java"},
			note: "no signal handling",
		},
	}
}
