package reload

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/bind"
)

// binder is a daemon that knows nothing of gapless: each argument is a step,
//
//	socket:NAME,4|6|u|d[,v6only][,dual][,reuseaddr][,reuseport][,mptcp][,lo]   it makes a socket
//	epoll:NAME   bind:NAME,ADDR   listen:NAME   close:NAME   serve:NAME
//	trybind:NAME,ADDR,FILE   trylisten:NAME,FILE    notes what came of it in a file
//	on:ADDR[,option…]      a socket that is bound, listens and is served
//	golisten:ADDR          the same by package net
//	unshare:net   fds:FILE  notes what is open
//	early:        turns clients away from here on, until  ready:  which also says READY=1
//	wait:FILE   sleep:D   note:FILE   exit:CODE   steps:FILE
//	child:STEP|STEP…       a process with all its sockets
//	keep:STEP|STEP…        the same, started anew when it has ended
//	detach:STEP|STEP…      in a session of its own
//
// $GEN is the generation's number, and N/step a step that only generation N
// takes. In the end it waits for the stop signal, and exits at once.
type binder struct {
	sockets map[string]int
	epolls  map[string]int
	early   atomic.Bool
}

func binderMain(steps []string) int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	b := &binder{sockets: map[string]int{}, epolls: map[string]int{}}
	for i := 0; i+1 < len(steps) && strings.HasPrefix(steps[i], "with:"); i++ { // sockets of the parent's
		name, fd, _ := strings.Cut(steps[i][5:], ",")
		b.sockets[name], _ = strconv.Atoi(fd)
	}
	if code, done := b.all(steps); done {
		return code
	}
	<-stop
	return 0
}

func (b *binder) all(steps []string) (int, bool) {
	for _, step := range steps {
		if code, done := b.step(step); done {
			return code, true
		}
	}
	return 0, false
}

func (b *binder) step(step string) (int, bool) {
	if number, rest, ok := strings.Cut(step, "/"); ok && !strings.Contains(number, ":") {
		if number != os.Getenv("GAPLESS_GENERATION") {
			return 0, false
		}
		step = rest
	}
	verb, value, _ := strings.Cut(strings.ReplaceAll(step, "$GEN", os.Getenv("GAPLESS_GENERATION")), ":")
	switch verb {
	case "exit":
		code, _ := strconv.Atoi(value)
		return code, true
	case "steps":
		text, _ := os.ReadFile(value) // where there is no file there are none
		return b.all(strings.Fields(string(text)))
	}
	if err := b.take(verb, value, strings.Split(value, ",")); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", step, err)
		return 8, true
	}
	return 0, false
}

func (b *binder) take(verb, value string, args []string) error {
	switch verb {
	case "wait":
		waitFor(value)
	case "sleep":
		d, _ := time.ParseDuration(value)
		time.Sleep(d) // what a slow start is
	case "early":
		b.early.Store(true)
	case "ready":
		b.early.Store(false)
		(&testDaemon{notify: true}).ready()
	case "unshare":
		return unshareNet()
	case "fds":
		for _, to := range openAtAll() {
			note(value, to)
		}
	case "note":
		note(value, fmt.Sprint(os.Getpid()))
	case "child", "keep", "detach":
		return b.fork(verb, splitSteps(value))
	case "golisten":
		ln, err := net.Listen("tcp", value)
		if err == nil {
			go http.Serve(ln, http.HandlerFunc(reply))
		}
		return err
	case "on":
		return b.on(args)
	case "with":
	default:
		return b.takeSocket(verb, args)
	}
	return nil
}

func (b *binder) takeSocket(verb string, args []string) error {
	fd, made := b.sockets[args[0]]
	switch {
	case verb == "socket":
		return b.socket(args[0], args[1:])
	case !made:
		return errors.New("there is no such socket")
	}
	switch verb {
	case "bind":
		return bindRaw(fd, args[1])
	case "listen":
		return unix.Listen(fd, 128)
	case "trybind":
		note(args[2], fmt.Sprint(bindRaw(fd, args[1])))
	case "trylisten":
		note(args[1], fmt.Sprint(unix.Listen(fd, 128)))
	case "close":
		delete(b.sockets, args[0])
		return unix.Close(fd)
	case "shutdown":
		return unix.Shutdown(fd, unix.SHUT_RDWR)
	case "epoll":
		epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return err
		}
		b.epolls[args[0]] = epoll
		return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	case "serve":
		go b.serve(fd, b.epolls[args[0]])
	default:
		return errors.New("there is no such step")
	}
	return nil
}

func (b *binder) on(args []string) error {
	name, family := args[0], "4"
	if at := netip.MustParseAddrPort(args[0]); at.Addr().Is6() {
		family = "6"
	}
	return errors.Join(
		b.socket(name, append([]string{family, "reuseaddr"}, args[1:]...)),
		b.takeSocket("bind", []string{name, args[0]}), b.takeSocket("listen", []string{name}), b.takeSocket("serve", []string{name}))
}

func (b *binder) socket(name string, options []string) error {
	family := map[string]int{"4": unix.AF_INET, "6": unix.AF_INET6, "u": unix.AF_UNIX, "d": unix.AF_INET}[options[0]]
	kind, protocol := unix.SOCK_STREAM, 0
	if options[0] == "d" {
		kind = unix.SOCK_DGRAM
	}
	if slices.Contains(options, "mptcp") {
		protocol = unix.IPPROTO_MPTCP
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	b.sockets[name] = fd
	for _, o := range options[1:] {
		switch o {
		case "v6only", "dual":
			err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, map[string]int{"v6only": 1}[o]))
		case "reuseaddr":
			err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		case "reuseport":
			err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		case "lo":
			err = errors.Join(err, unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo"))
		}
	}
	return err
}

// bindRaw to an IP address or a path.
func bindRaw(fd int, to string) error {
	at, err := netip.ParseAddrPort(to)
	switch {
	case err != nil:
		return unix.Bind(fd, &unix.SockaddrUnix{Name: to})
	case at.Addr().Is4():
		return unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	}
	return unix.Bind(fd, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()})
}

// serve accepts with plain system calls, as soon as poll(2), or the epoll of before,
// says so.
func (b *binder) serve(fd, epoll int) {
	unix.SetNonblock(fd, true)
	for {
		if epoll > 0 {
			unix.EpollWait(epoll, make([]unix.EpollEvent, 1), -1)
		} else {
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		}
		conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			go b.answerOne(conn)
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			fmt.Fprintln(os.Stderr, "accept:", err)
			return
		}
	}
}

// oneConn is a listener of one connection.
type oneConn struct {
	net.Conn
	given bool
}

func (o *oneConn) Accept() (net.Conn, error) {
	if o.given {
		return nil, net.ErrClosed
	}
	o.given = true
	return o.Conn, nil
}
func (o *oneConn) Close() error   { return nil }
func (o *oneConn) Addr() net.Addr { return o.LocalAddr() }

func (b *binder) answerOne(fd int) {
	f := os.NewFile(uintptr(fd), "connection")
	c, err := net.FileConn(f)
	f.Close()
	if err == nil {
		http.Serve(&oneConn{Conn: c}, http.HandlerFunc(b.reply))
	}
}

func (b *binder) reply(w http.ResponseWriter, r *http.Request) {
	if b.early.Load() {
		fmt.Fprintln(w, "early", os.Getpid())
		return
	}
	reply(w, r)
}

// fork a process that has all of this one's sockets.
func (b *binder) fork(how string, steps []string) error {
	start := func() (*exec.Cmd, error) {
		cmd := exec.Command(os.Args[0], "binder")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: how == "detach"}
		for name, fd := range b.sockets {
			dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
			if err != nil {
				return nil, err
			}
			f := os.NewFile(uintptr(dup), name)
			defer f.Close()
			cmd.Args = append(cmd.Args, fmt.Sprintf("with:%s,%d", name, 3+len(cmd.ExtraFiles)))
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
		cmd.Args = append(cmd.Args, steps...)
		return cmd, cmd.Start()
	}
	cmd, err := start()
	if err == nil {
		go func() {
			for err == nil {
				cmd.Wait()
				if how != "keep" {
					return
				}
				cmd, err = start()
			}
		}()
	}
	return err
}

// unshareNet moves all threads: a socket's namespace is that of the thread that made it.
func unshareNet() error {
	if os.Getenv("UNSHARED") != "" {
		return nil
	}
	cmd, err := exec.LookPath("unshare")
	if err != nil {
		return err
	}
	os.Setenv("UNSHARED", "1")
	return unix.Exec(cmd, append([]string{cmd, "-n", "--"}, os.Args...), os.Environ())
}

// openAtAll are the files of this process, but for the runtime's own, and the directory itself.
func openAtAll() (all []string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(to, "anon_inode:[event") && !strings.HasPrefix(to, "/sys/fs/cgroup/") {
			all = append(all, e.Name()+"="+to)
		}
	}
	return all
}

// filtered puts a filter with a notify fd on this thread, and of those there can be one.
func filtered() {
	runtime.LockOSThread()
	if _, _, err := bind.Install(); err != nil { // the fd stays open, or binds would fail with ENOSYS
		fmt.Fprintln(os.Stderr, err)
		os.Exit(9)
	}
}

// splitSteps of a process; those of its own child have semicolons between them.
func splitSteps(text string) []string {
	steps := strings.Split(text, "|")
	for i, s := range steps {
		if verb, rest, _ := strings.Cut(s, ":"); verb == "detach" || verb == "child" {
			steps[i] = verb + ":" + strings.ReplaceAll(rest, ";", "|")
		}
	}
	return steps
}
