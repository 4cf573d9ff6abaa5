// Command awkward is a small HTTP server that does with its socket what nobody has in
// mind who thinks of servers. Each flag is a habit of its own. It knows nothing of who
// starts it; its answers name the generation that the environment says, so that they can
// be told apart. SIGTERM just ends it.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

type habits struct {
	listen                   string
	epollFirst, listenTwice  bool
	listenAfter, acceptAfter time.Duration
	backlog                  int
	fragile, oneByOne        bool
}

func main() {
	var h habits
	flag.StringVar(&h.listen, "listen", "", "`ADDRESS` to bind")
	flag.BoolVar(&h.epollFirst, "epoll-first", false, "do not block, and register the socket with epoll before it is bound")
	flag.DurationVar(&h.listenAfter, "listen-after", 0, "from bind to listen")
	flag.DurationVar(&h.acceptAfter, "accept-after", 0, "from listen to the first accept")
	flag.BoolVar(&h.listenTwice, "listen-twice", false, "listen twice")
	flag.IntVar(&h.backlog, "backlog", 128, "what listen is called with")
	flag.BoolVar(&h.fragile, "fragile", false, "end at whatever error of accept")
	flag.BoolVar(&h.oneByOne, "one-by-one", false, "accept one client, and the next when that has gone")
	flag.Parse()
	if err := h.run(); err != nil {
		fmt.Fprintln(os.Stderr, "awkward:", err)
		os.Exit(1)
	}
}

func (h habits) run() error {
	l, err := h.open()
	if err != nil {
		return err
	}
	return http.Serve(l, http.HandlerFunc(answer))
}

func answer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-Generation", os.Getenv("GAPLESS_GENERATION"))
	fmt.Fprintln(w, "ok")
}

func (h habits) open() (*listener, error) {
	at, err := netip.ParseAddrPort(h.listen)
	if err != nil {
		return nil, err
	}
	l := &listener{habits: h, at: at, epoll: -1, free: make(chan struct{}, 1)}
	l.free <- struct{}{}
	steps := []func() error{l.socket, l.bind, l.listen}
	if h.epollFirst {
		steps = []func() error{l.socket, l.register, l.bind, l.listen}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	time.Sleep(h.acceptAfter)
	return l, nil
}

func (l *listener) socket() (err error) {
	kind := unix.SOCK_STREAM | unix.SOCK_CLOEXEC
	if l.epollFirst {
		kind |= unix.SOCK_NONBLOCK
	}
	if l.fd, err = unix.Socket(unix.AF_INET, kind, 0); err != nil {
		return fmt.Errorf("can't make a socket: %w", err)
	}
	return unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
}

func (l *listener) register() (err error) {
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("can't make an epoll: %w", err)
	}
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(l.fd)})
}

func (l *listener) bind() error {
	if err := unix.Bind(l.fd, &unix.SockaddrInet4{Port: int(l.at.Port()), Addr: l.at.Addr().As4()}); err != nil {
		return fmt.Errorf("can't bind %s: %w", l.at, err)
	}
	return nil
}

func (l *listener) listen() error {
	time.Sleep(l.listenAfter)
	times := 1
	if l.listenTwice {
		times = 2
	}
	for range times {
		if err := unix.Listen(l.fd, l.backlog); err != nil {
			return fmt.Errorf("can't listen on %s: %w", l.at, err)
		}
	}
	return nil
}
