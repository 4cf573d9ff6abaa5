package reload

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/leaktest"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// The test binary is also the shim and the daemon, told apart by its arguments.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "__shim":
			spawn.Shim(os.Args[2:])
		case "__heldshim": // until a file exists
			waitFor(os.Args[2])
			spawn.Shim(os.Args[3:])
		case "__doomedshim": // which a file says the fate of
			meet(os.Args[2])
			spawn.Shim(os.Args[3:])
		case "__filteredshim": // under a filter that somebody else has put on
			filtered()
			spawn.Shim(os.Args[2:])
		case "daemon":
			os.Exit(daemonMain(os.Args[2:]))
		case "binder":
			os.Exit(binderMain(os.Args[2:]))
		}
	}
	flag.Parse()
	flag.Set("test.parallel", "6") // they wait for processes, not for the processor
	os.Exit(leaktest.Run(m, 0))
}

// meet the fate of this process that stands in a file: a signal, and when it comes.
// Once it is another program, none comes.
func meet(file string) {
	text, _ := os.ReadFile(file)
	var sig syscall.Signal
	var after time.Duration
	switch n, _ := fmt.Sscan(string(text), &sig, &after); {
	case n == 2 && after == 0:
		syscall.Kill(os.Getpid(), sig)
	case n == 2:
		time.AfterFunc(after, func() { syscall.Kill(os.Getpid(), sig) })
	}
}

// daemonMain is a daemon with habits: each argument is one.
func daemonMain(habits []string) int {
	d := &testDaemon{stop: make(chan os.Signal, 1)}
	signal.Notify(d.stop, syscall.SIGTERM)
	for _, h := range habits {
		if code, done := d.take(h); done {
			return code
		}
	}
	return d.serve()
}

func (d *testDaemon) take(habit string) (int, bool) {
	name, value, _ := strings.Cut(habit, "=")
	if name != "habits" {
		return d.do(name, value)
	}
	more, _ := os.ReadFile(value) // where there is no file there are none
	for _, h := range strings.Fields(string(more)) {
		if code, done := d.take(h); done {
			return code, true
		}
	}
	return 0, false
}

type testDaemon struct {
	stop     chan os.Signal
	notify   bool
	deaf     bool
	shutdown bool
	slow     time.Duration
	count    string // a file
	locked   *os.File
}

func (d *testDaemon) do(habit, value string) (int, bool) {
	switch habit {
	case "say":
		fmt.Fprintln(os.Stderr, value)
	case "lines":
		n := 0
		fmt.Sscan(value, &n)
		for i := range n {
			fmt.Println("line", i+1)
		}
	case "exit":
		code := 0
		fmt.Sscan(value, &code)
		return code, true
	case "exitif": // a file that exists
		if _, err := os.Stat(value); err == nil {
			return 3, true
		}
	case "start":
		d.slow, _ = time.ParseDuration(value)
		time.Sleep(d.slow) // what a slow start is
	case "until": // a file exists
		waitFor(value)
	case "count":
		d.count = value
	case "sigstop":
		for { // it stops soon, not at once
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		}
	case "shutdown3":
		unix.Shutdown(3, unix.SHUT_RDWR)
	case "blocking": // is what the daemon got
		flags, err := unix.FcntlInt(3, unix.F_GETFL, 0)
		note(value, fmt.Sprintf("%t %v", flags&unix.O_NONBLOCK == 0, err))
	case "stray": // in a session of its own, with the listener
		cmd := exec.Command(os.Args[0], "daemon", "astray="+value)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		fd, err := unix.FcntlInt(3, unix.F_DUPFD_CLOEXEC, 4)
		if err != nil {
			return 9, true
		}
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "listener")}
		deaf, err := cmd.StdoutPipe()
		if err != nil || cmd.Start() != nil {
			return 9, true
		}
		deaf.Read(make([]byte, 1)) // it is from here on
		note(value, fmt.Sprint(cmd.Process.Pid))
	case "polite": // in a session of its own, and ends when it is told to
		cmd := exec.Command("sleep", "600")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return 9, true
		}
		note(value, fmt.Sprint(cmd.Process.Pid))
	case "astray":
		signal.Ignore(syscall.SIGTERM)
		fmt.Print("1")
		code := d.serveHTTP()
		note(value, "serving ended")
		return code, true
	case "lock": // only one may have it
		f, err := os.OpenFile(value, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil || unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			fmt.Fprintln(os.Stderr, "the data is locked")
			return 6, true
		}
		d.locked = f
	case "hang":
		<-make(chan int)
	case "early": // says that it is ready, and is not
		d.notify = true
		d.ready()
	case "notify":
		d.notify = true
	case "deaf":
		d.deaf = true
	case "careless": // ends at once, with all that it has
		signal.Reset(syscall.SIGTERM)
	case "close3":
		unix.Close(3)
		d.ready()
		<-d.stop
		return 0, true
	case "shutdown":
		d.shutdown = true
	case "backlog":
		n := 0
		fmt.Sscan(value, &n)
		unix.Listen(3, n)
	case "nonblock", "block":
		unix.SetNonblock(3, habit == "nonblock")
	case "child":
		cmd := exec.Command(os.Args[0], "daemon", "orphan")
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			return 9, true
		}
	case "worker": // which shuts the listener down when it is told to stop, and stays
		cmd := exec.Command(os.Args[0], "daemon", "working")
		cmd.ExtraFiles, cmd.Stderr = []*os.File{os.NewFile(3, "listener")}, os.Stderr
		ready, err := cmd.StdoutPipe()
		if err != nil || cmd.Start() != nil {
			return 9, true
		}
		ready.Read(make([]byte, 1))
	case "working":
		fmt.Print("1")
		<-d.stop
		unix.Shutdown(3, unix.SHUT_RDWR)
		fmt.Fprintln(os.Stderr, "shut down")
		<-make(chan int)
	case "orphan":
		signal.Ignore(syscall.SIGTERM)
		<-make(chan int)
	case "env":
		os.WriteFile(value, []byte(strings.Join(os.Environ(), "\n")), 0o600)
	}
	return 0, false
}

func waitFor(file string) {
	for _, err := os.Stat(file); err != nil; _, err = os.Stat(file) {
		time.Sleep(5 * time.Millisecond)
	}
}

// note adds a line to a file.
func note(file, line string) {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintln(f, line)
}

// serveHTTP until the listener is shut down.
func (d *testDaemon) serveHTTP() int {
	file := os.NewFile(3, "listener")
	defer runtime.KeepAlive(file)
	ln, err := net.FileListener(file)
	if err != nil {
		return 4
	}
	http.Serve(ln, http.HandlerFunc(reply))
	return 0
}

func (d *testDaemon) ready() {
	if !d.notify {
		return
	}
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer c.Close()
	c.Write([]byte("READY=1\nSTATUS=serving"))
}

func (d *testDaemon) serve() int {
	file := os.NewFile(3, "listener")
	defer runtime.KeepAlive(file) // a habit may want number 3
	ln, err := net.FileListener(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, "no listener:", err)
		return 4
	}
	srv := &http.Server{Handler: http.HandlerFunc(reply)}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	d.ready()
	for {
		select {
		case err := <-served:
			fmt.Fprintln(os.Stderr, err)
			if errors.Is(err, unix.EINVAL) {
				<-d.stop // the listener was shut down
				return 0
			}
			return 5
		case <-d.stop:
			if d.count != "" {
				note(d.count, fmt.Sprint(os.Getpid()))
			}
			if d.deaf {
				continue
			}
			if d.shutdown {
				unix.Shutdown(3, unix.SHUT_RDWR)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			srv.Shutdown(ctx)
			return 0
		}
	}
}

// reply says which generation it is. /stream never ends, /die and /leave end the process,
// /shutdown ends the listener, /env/NAME is a variable, /cwd its directory, /wait/FILE waits for one, /begin/FILE
// begins its answer first.
func reply(w http.ResponseWriter, r *http.Request) {
	if name, ok := strings.CutPrefix(r.URL.Path, "/env/"); ok {
		fmt.Fprintln(w, os.Getenv(name))
		return
	}
	if file, ok := strings.CutPrefix(r.URL.Path, "/wait"); ok {
		waitFor(file)
	}
	if file, ok := strings.CutPrefix(r.URL.Path, "/begin"); ok {
		fmt.Fprintf(w, "%s begins\n", os.Getenv("GAPLESS_GENERATION"))
		http.NewResponseController(w).Flush()
		waitFor(file)
		fmt.Fprintln(w, "and ends")
		return
	}
	switch r.URL.Path {
	case "/cwd":
		dir, _ := os.Getwd()
		fmt.Fprintln(w, dir)
		return
	case "/stream":
		fmt.Fprintf(w, "%s begins\n", os.Getenv("GAPLESS_GENERATION"))
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return
	case "/die":
		os.Exit(7)
	case "/leave":
		os.Exit(0)
	case "/shutdown":
		unix.Shutdown(3, unix.SHUT_RDWR)
	}
	w.Header().Set("X-Generation", os.Getenv("GAPLESS_GENERATION"))
	fmt.Fprintf(w, "%s %d\n", os.Getenv("GAPLESS_GENERATION"), os.Getpid())
}
