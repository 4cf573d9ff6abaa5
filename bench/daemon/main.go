// Command daemon is the server that tests, demo and benchmarks replace under load.
// It is as good or as bad as the servers people have:
//
//	-style library   uses handoff/activation: drains so that nothing is lost
//	-style plain     http.Server with a bare Shutdown on SIGTERM, as most are,
//	                 on listeners taken by go-systemd's activation package
//	-style careless  has no graceful stop at all: SIGTERM kills it
//
// With -listen it binds the address itself, as for a plain restart. With -fault it is
// a version that should not have been deployed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/activation"

	"github.com/gapless-dev/gapless/handoff/activation"
)

type options struct {
	style, listen, lock string
	start, slow         time.Duration
	notify              bool
	fault               string
}

func main() {
	var o options
	flag.StringVar(&o.style, "style", "library", "library, plain or careless")
	flag.StringVar(&o.listen, "listen", "", "bind this address instead of taking listeners")
	flag.StringVar(&o.lock, "lock", "", "only one may have this file, as a database its data")
	flag.DurationVar(&o.start, "start", 0, "how long the start takes")
	flag.DurationVar(&o.slow, "slow", 300*time.Millisecond, "how long an answer to /slow takes")
	flag.BoolVar(&o.notify, "notify", false, "say READY=1, as -style library always does")
	flag.StringVar(&o.fault, "fault", "", "exit, hang, sick or die:DURATION")
	flag.Parse()
	fault(o.fault).beforeServing()
	time.Sleep(o.start) // stands for loading whatever servers load
	if err := o.run(); err != nil {
		fmt.Fprintln(os.Stderr, "daemon:", err)
		os.Exit(1)
	}
}

func (o options) run() error {
	data, err := o.data()
	if err != nil {
		return err
	}
	defer data.Close() // with it goes the lock
	srv := &http.Server{Handler: o.handler()}
	if err := fault(o.fault).spoil(srv); err != nil {
		return err
	}
	if o.style == "library" && o.listen == "" {
		return o.library(srv)
	}
	ln, echo, err := o.listeners()
	if err != nil {
		return err
	}
	ctx := context.Background()
	if o.style != "careless" {
		stopped, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
		defer stop()
		ctx = stopped
	}
	var open sync.WaitGroup
	if echo != nil {
		go serveEcho(echo, &open)
		defer open.Wait()
	}
	if o.notify {
		if err := activation.Ready(); err != nil {
			return err
		}
	}
	return o.serve(ctx, srv, ln)
}

// data is nil if there are none.
func (o options) data() (*os.File, error) {
	if o.lock == "" {
		return nil, nil
	}
	f, err := os.OpenFile(o.lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("can't lock %s: %w", o.lock, err)
	}
	return f, nil
}

// library is all that a daemon needs for a stop that loses nothing.
func (o options) library(srv *http.Server) error {
	inherited, err := activation.Inherit()
	if err != nil {
		return err
	}
	ln, err := inherited.Listen("http", "tcp", ":8080")
	if err != nil {
		return err
	}
	var open sync.WaitGroup
	if echo, ok := inherited.Listener("echo"); ok {
		go serveEcho(echo, &open)
		defer open.Wait()
	}
	return activation.Serve(context.Background(), srv, ln)
}

func (o options) listeners() (web, echo net.Listener, err error) {
	if o.listen != "" {
		web, err = net.Listen("tcp", o.listen)
		return web, nil, err
	}
	byName, err := systemd.ListenersWithNames()
	if err != nil {
		return nil, nil, err
	}
	if len(byName["http"]) == 0 {
		return nil, nil, errors.New("no listener is called http")
	}
	if len(byName["echo"]) > 0 {
		echo = byName["echo"][0]
	}
	return byName["http"][0], echo, nil
}

// serve is the bare Shutdown of most servers.
func (o options) serve(ctx context.Context, srv *http.Server, ln net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}

func (o options) handler() http.Handler {
	generation, pid := os.Getenv("GAPLESS_GENERATION"), strconv.Itoa(os.Getpid())
	if generation == "" {
		generation = pid
	}
	answer := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Generation", generation)
		fmt.Fprintf(w, "%s %s\n", generation, pid)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", answer)
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(o.slow) // what is asked for
		answer(w, r)
	})
	return mux
}

// serveEcho sends back what comes, on each connection for as long as its client
// wants.
func serveEcho(ln net.Listener, open *sync.WaitGroup) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		open.Go(func() {
			defer c.Close()
			io.Copy(c, c)
		})
	}
}
