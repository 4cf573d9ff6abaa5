package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// daemon is what the scripts run: an HTTP server that takes LISTEN_FDS and says
// READY=1, or something worse.
//
//	daemon                  answers "generation N"
//	daemon from FILE        does as FILE says, read anew at each start
//	daemon exit N WORDS...  says the words to stderr and ends
//	daemon hang             is never ready
//	daemon silent           serves, but says nothing
//	daemon ignore-term      serves on
//	daemon careless         ends at once at SIGTERM, with all that it has
//	daemon grandchild       leaves a process behind when it ends
//	daemon away             leaves one that has a session of its own
//	daemon close3           says that it is ready, without its listener
//	daemon env              says what it was given
//	daemon doomed           serves for half a second, and ends with 3
//	daemon terms            says each SIGTERM, and serves on
//	daemon chatty           writes all the time, whether or not it can
//	daemon ask ADDR         is no daemon: says what is answered there
//	daemon usr1 FILE        writes to FILE at SIGUSR1
//	daemon chatty           says much, and goes on saying it
//	daemon threads          has all its threads before it serves
//	daemon until FILE       serves once FILE is there
//	daemon binds ADDR       knows nothing of LISTEN_FDS, and says nothing
func daemon(args []string) int {
	mode := strings.Join(args[:min(1, len(args))], "")
	switch mode {
	case "from":
		b, err := os.ReadFile(args[1])
		if err != nil {
			return 2
		}
		return daemon(strings.Fields(string(b)))
	case "binds":
		return serveAt(args[1])
	case "exit":
		fmt.Fprintln(os.Stderr, strings.Join(args[2:], " "))
		n, _ := strconv.Atoi(args[1])
		return n
	case "ask":
		return askOnce(args[1])
	case "hang":
		untilSignal(syscall.SIGTERM)
		return 0
	case "close3":
		syscall.Close(3)
		say("READY=1")
		untilSignal(syscall.SIGTERM)
		return 0
	case "threads":
		haveThreads(threadsAhead)
	case "chatty":
		go chat()
	case "until":
		for _, err := os.Stat(args[1]); err != nil; _, err = os.Stat(args[1]) {
			time.Sleep(5 * time.Millisecond)
		}
	case "env":
		sayEnv()
	case "grandchild", "away":
		child := exec.Command("/proc/self/exe")
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: mode == "away"}
		child.Args = []string{"daemon", "hang-on"}
		out, err := child.StdoutPipe()
		if err != nil || child.Start() != nil {
			return 2
		}
		out.Read(make([]byte, 1)) // it is deaf from here on
	case "hang-on":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println()
		untilSignal(syscall.SIGUSR2)
		return 0
	}
	return serve(mode, args)
}

func serve(mode string, args []string) int {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		fmt.Fprintln(os.Stderr, "LISTEN_PID is not mine")
		return 2
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "generation "+os.Getenv("GAPLESS_GENERATION"))
	})}
	if mode == "doomed" {
		time.AfterFunc(500*time.Millisecond, func() {
			fmt.Fprintln(os.Stderr, "alas")
			os.Exit(3)
		})
	}
	if mode == "ignore-term" {
		signal.Ignore(syscall.SIGTERM)
	}
	if mode == "usr1" {
		go func() {
			untilSignal(syscall.SIGUSR1)
			os.WriteFile(args[1], []byte("got SIGUSR1\n"), 0o644)
		}()
	}
	var wg sync.WaitGroup
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for fd := 3; fd < 3+n; fd++ {
		l, err := net.FileListener(os.NewFile(uintptr(fd), "listener"))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		wg.Go(func() { server.Serve(l) })
	}
	if mode != "silent" && mode != "terms" {
		say("READY=1")
	}
	if mode == "chatty" {
		signal.Ignore(syscall.SIGPIPE)
		go func() {
			for range time.Tick(time.Millisecond) {
				fmt.Println("still here")
			}
		}()
	}
	if mode == "terms" {
		c := make(chan os.Signal, 8)
		signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		say("READY=1")
		for sig := range c {
			fmt.Println("daemon got", sig)
		}
	}
	if mode == "ignore-term" || mode == "careless" {
		wg.Wait()
	}
	untilSignal(syscall.SIGTERM)
	server.Shutdown(context.Background())
	return 0
}

// serveAt is a daemon that nobody prepared.
func serveAt(addr string) int {
	err := http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "generation "+os.Getenv("GAPLESS_GENERATION"))
	}))
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// chat ends the daemon if it is blocked or can't be heard.
func chat() {
	for {
		said := time.AfterFunc(10*time.Second, func() { os.Exit(8) })
		for range 100 {
			if _, err := fmt.Println(strings.Repeat("chat ", 20)); err != nil {
				os.Exit(9)
			}
		}
		said.Stop()
		time.Sleep(10 * time.Millisecond)
	}
}

func untilSignal(sig os.Signal) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, sig)
	<-c
}

func say(what string) {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return
	}
	defer c.Close()
	c.Write([]byte(what))
}

func sayEnv() {
	env := os.Environ()
	slices.Sort(env)
	for _, kv := range env {
		fmt.Println("env", kv)
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(to, "anon_inode:") { // the Go runtime's own
			kind, _, _ := strings.Cut(to, ":")
			fmt.Println("fd", e.Name(), kind)
		}
	}
}

// fetch is a client: it says what it is answered.
func fetch(addr string) int {
	client := http.Client{Timeout: patience}
	resp, err := client.Get("http://" + addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		return 1
	}
	return 0
}
