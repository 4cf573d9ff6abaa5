package activation

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Serve runs srv on the listeners until SIGTERM or SIGINT, with the defaults of
// [Server]; see [Server.Serve].
func Serve(ctx context.Context, srv *http.Server, lns ...net.Listener) error {
	return (&Server{HTTP: srv}).Serve(ctx, lns...)
}

// Server serves HTTP and stops without losing a request.
//
// [http.Server.Shutdown] alone loses some: it drops the request that it is just
// reading, and closes connections at which the next one is just arriving
// (golang/go#75591). So Shutdown comes last here, when nothing is left for it
// that could be lost.
type Server struct {
	// HTTP is what serves; nil stands for an empty http.Server. Serve puts
	// itself around its Handler, ConnState and BaseContext, which are still
	// called: do not change it, nor use it again, once Serve was called.
	HTTP *http.Server

	// IdleGrace is how long a kept-alive connection must have been idle,
	// counted from the stop signal on, before it is closed without an answer
	// that announced it. Default 2 s, negative for none. It should be longer
	// than the usual time between two requests of a client that can't repeat
	// them.
	IdleGrace time.Duration

	// DrainTimeout is how long the whole drain may last before what is left is
	// cut. Default 25 s, negative for none at all.
	DrainTimeout time.Duration

	signals func() (<-chan os.Signal, func()) // for tests; nil: the process's
}

// Serve serves on every listener, says READY=1 once all are being accepted
// from, and returns when SIGTERM or SIGINT has come, ctx has ended or a
// listener has failed, after this drain:
//
//  1. STOPPING=1 is said and the listeners are closed. Under gapless new
//     connections go elsewhere by then.
//  2. Each connection gets its answer. From now on an answer says
//     Connection: close (HTTP/2: GOAWAY), and the client goes elsewhere.
//  3. When every connection has been closed that way or has been idle for
//     IdleGrace, Shutdown follows. It waits no longer than 5 s for connections
//     that have not sent a request yet, and for requests that take longer than
//     that: those are left to Shutdown, which waits for them too, calls what was
//     registered with RegisterOnShutdown, and does not wait for hijacked
//     connections.
//  4. After DrainTimeout, or at once at a second SIGTERM or SIGINT, what is
//     left is cut. Handlers may still be running then.
//
// It returns nil when nothing was cut and no listener failed. A message that
// the manager did not take goes to HTTP.ErrorLog and changes nothing: clients
// can still be served.
//
// With HTTP.TLSConfig set, all listeners speak TLS, with its certificates. Serve
// closes the listeners; when it has returned, the signals have their former
// effect again.
func (s *Server) Serve(ctx context.Context, lns ...net.Listener) error {
	if len(lns) == 0 {
		return errors.New("can't serve: no listener")
	}
	signals := s.signals
	if signals == nil {
		signals = stopSignals
	}
	stop, release := signals()
	defer release()
	r := s.start(lns)
	err := r.untilStopped(ctx, stop)
	r.report(Stopping())
	return errors.Join(err, r.drain(stop))
}

// stopSignals has room for the first signal and for the one that says hurry.
func stopSignals() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGTERM, os.Interrupt)
	return c, func() { signal.Stop(c) }
}

// serving is one call of Serve.
type serving struct {
	srv       *http.Server
	lns       []net.Listener
	conns     *connTable
	timeout   time.Duration
	accepting chan struct{} // one from each listener, before its first accept
	ended     chan error    // one from each listener
	running   int           // listeners that have not ended
}

func (s *Server) start(lns []net.Listener) *serving {
	srv := s.HTTP
	if srv == nil {
		srv = &http.Server{}
	}
	r := &serving{
		srv:       srv,
		lns:       lns,
		conns:     newConnTable(durationOr(s.IdleGrace, 2*time.Second)),
		timeout:   durationOr(s.DrainTimeout, 25*time.Second),
		accepting: make(chan struct{}, len(lns)),
		ended:     make(chan error, len(lns)),
		running:   len(lns),
	}
	r.wrap()
	useTLS := srv.TLSConfig != nil // now: net/http sets it while serving
	for _, ln := range lns {
		go r.serve(ln, useTLS)
	}
	return r
}

func durationOr(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return max(d, 0)
}

// wrap puts us around the hooks that the caller may have set.
func (r *serving) wrap() {
	handler, state, base := r.srv.Handler, r.srv.ConnState, r.srv.BaseContext
	if handler == nil {
		handler = http.DefaultServeMux
	}
	r.srv.Handler = r.conns.announce(handler)
	r.srv.ConnState = func(c net.Conn, st http.ConnState) {
		r.conns.note(c, st)
		if state != nil {
			state(c, st)
		}
	}
	// The one hook that net/http calls when all its checks are done and accept
	// is next.
	r.srv.BaseContext = func(ln net.Listener) context.Context {
		r.accepting <- struct{}{}
		if base != nil {
			return base(ln)
		}
		return context.Background()
	}
}

func (r *serving) serve(ln net.Listener, useTLS bool) {
	if useTLS {
		r.ended <- r.srv.ServeTLS(ln, "", "")
	} else {
		r.ended <- r.srv.Serve(ln)
	}
}

// untilStopped returns nil when somebody wants the stop, else why serving failed.
func (r *serving) untilStopped(ctx context.Context, stop <-chan os.Signal) error {
	for waiting := len(r.lns); ; {
		select {
		case <-r.accepting:
			if waiting--; waiting == 0 {
				r.report(Ready())
			}
		case err := <-r.ended:
			r.running--
			return fmt.Errorf("can't serve: %w", err)
		case <-stop:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// report logs where net/http logs.
func (r *serving) report(err error) {
	switch {
	case err == nil:
	case r.srv.ErrorLog != nil:
		r.srv.ErrorLog.Print(err)
	default:
		log.Print(err)
	}
}
