package control

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload"
)

// Options of a [Server]; the zero value of a field is its default.
type Options struct {
	// Start and Stop bound how long a reload and a stop may take where the caller
	// does not say: more than the service's own deadlines. 2 min and 5 min.
	Start, Stop time.Duration
	// Canary is how much longer than Start a reload may take by default.
	Canary time.Duration
	// UIDs may ask besides root. The holder's own.
	UIDs []uint32
	// Clients may be connected at once. 128, or an eighth of RLIMIT_NOFILE if that is less.
	Clients int
	Log     zerolog.Logger
}

const (
	quick      = 10 * time.Second // what needs no waiting for the daemon
	headerTime = 5 * time.Second
	bodyMost   = 1 << 20 // a command with its arguments
	bodyTime   = 5 * time.Second
	closeTime  = 2 * time.Second
)

// Server answers at a control socket.
type Server struct {
	socket  *Socket
	svc     Service
	options Options
	http    *http.Server
	gate    *gate
	// followers and waiters are places for those that stay: who follows leaves some to
	// who waits for the daemon, and both to who is answered at once.
	followers, waiters places
	looks              chan struct{}
	cancel             context.CancelFunc
	wg                 sync.WaitGroup
}

// Serve answers at socket, which it owns from now on, until [Server.Close].
func Serve(socket *Socket, svc Service, o Options) *Server {
	if o.Start == 0 {
		o.Start = 2 * time.Minute
	}
	if o.Stop == 0 {
		o.Stop = 5 * time.Minute
	}
	if o.UIDs == nil {
		o.UIDs = []uint32{uint32(os.Geteuid())}
	}
	if o.Clients == 0 {
		o.Clients = clientsFor(openFilesLimit())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{socket: socket, svc: svc, options: o, cancel: cancel}
	s.gate, s.looks = newGate(socket.listener, o.Clients), make(chan struct{}, looksAtOnce)
	s.followers, s.waiters = make(places, o.Clients/2), make(places, o.Clients/4)
	s.http = &http.Server{
		Handler:           s.guard(s.routes()),
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       headerTime,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
		ConnState:         s.gate.follow,
		ErrorLog:          log.New(io.Discard, "", 0), // a client that breaks off is nobody's error
	}
	s.wg.Go(func() {
		if err := s.http.Serve(s.gate); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			o.Log.Error().Err(err).Str("event", "control.failed").Msg("the control socket does not answer any more")
		}
	})
	return s
}

// Close lets answers under way be written, then removes the socket and waits for
// everything that Serve began. Call it when the service has ended, which ends all
// operations; those of a service that goes on are broken off after 2 s.
func (s *Server) Close() error {
	remove := s.socket.Remove()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	s.gate.Close()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	s.cancel()
	s.wg.Wait()
	return remove
}

type (
	peerKey struct{}
	connKey struct{}
)

// withPeer asks the kernel, once per connection, who it is.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	ctx = context.WithValue(ctx, connKey{}, c)
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	peer, err := handoff.Peer(conn)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer)
}

// guard refuses everybody who may not ask, and keeps count of what runs. What is asked
// is read whole, in its time, before it is done.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.wg.Add(1)
		defer s.wg.Done()
		read := http.NewResponseController(w)
		read.SetReadDeadline(time.Now().Add(bodyTime)) // else a client that is slow with its body is waited for
		if reason := s.refuses(r.Context()); reason != "" {
			w.Header().Set("Connection", "close")
			answer(w, http.StatusForbidden, refused{failure(CodeNotPermitted, s.svc.Name(), reason)})
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyMost))
		if err != nil {
			w.Header().Set("Connection", "close")
			answer(w, http.StatusBadRequest, refused{failure(reload.CodeFailed, s.svc.Name(), "can't read the request: "+err.Error())})
			return
		}
		read.SetReadDeadline(time.Time{}) // that the client goes away must be heard while it waits
		r.Body = io.NopCloser(bytes.NewReader(body))
		if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			done, ok := s.gate.serve(c)
			if !ok {
				return // it was turned out just now
			}
			defer done()
		}
		next.ServeHTTP(w, r)
	})
}

// refuses tells why the client may not ask; "" if it may.
func (s *Server) refuses(ctx context.Context) string {
	peer, known := ctx.Value(peerKey{}).(handoff.Credentials)
	switch {
	case !known:
		return "who asks could not be found out"
	case peer.UID != 0 && !slices.Contains(s.options.UIDs, peer.UID):
		return fmt.Sprintf("uid %d may not control it; ask as the user who runs it, or as root", peer.UID)
	}
	return ""
}

// operation is one that waits for the service, at most for its limit; those that wait
// for the daemon are not many at once.
type operation struct {
	limit time.Duration
	waits bool
	do    func(ctx context.Context, q request) (any, error)
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/service", s.info)
	mux.HandleFunc("GET /v1/events", s.events)
	mux.Handle("GET /v1/status", s.handle(operation{quick, false, s.status}))
	mux.Handle("POST /v1/reload", s.handle(operation{s.options.Start, true, s.reload}, s.canaryTime))
	mux.Handle("POST /v1/canary", s.handle(operation{quick, false, s.canary}))
	mux.Handle("POST /v1/promote", s.handle(operation{s.options.Start, true, s.promote}))
	mux.Handle("POST /v1/pause", s.handle(operation{quick, false, s.pause}))
	mux.Handle("POST /v1/resume", s.handle(operation{quick, false, s.resume}))
	mux.Handle("POST /v1/rollback", s.handle(operation{s.options.Start, true, s.rollback}))
	mux.Handle("POST /v1/start", s.handle(operation{s.options.Start, true, s.start}))
	mux.Handle("POST /v1/stop", s.handle(operation{s.options.Stop, true, s.stop}))
	mux.Handle("POST /v1/shutdown", s.handle(operation{s.options.Stop, true, s.shutdown}))
	mux.Handle("POST /v1/kill", s.handle(operation{quick, false, s.kill}))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		reason := fmt.Sprintf("knows no %s %s; this version of gapless speaks /v1", r.Method, r.URL.Path)
		answer(w, http.StatusNotFound, refused{failure(reload.CodeFailed, s.svc.Name(), reason)})
	})
	return mux
}

// handle makes op answer requests; those that may take longer than its limit say so.
func (s *Server) handle(op operation, longer ...func(request) time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q request
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil && !errors.Is(err, io.EOF) {
			answer(w, http.StatusBadRequest, refused{failure(reload.CodeFailed, s.svc.Name(), "can't read the request: "+err.Error())})
			return
		}
		if op.waits {
			done, ok := s.waiters.take(w, s.svc.Name())
			if !ok {
				return
			}
			defer done()
		}
		limit := op.limit
		for _, more := range longer {
			limit += more(q)
		}
		if q.Timeout > 0 {
			limit = q.Timeout
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		result, err := op.do(ctx, q)
		if err != nil {
			answer(w, http.StatusConflict, refused{s.explain(err, limit)})
			return
		}
		answer(w, http.StatusOK, result)
	})
}

// explain makes a Failure of any error.
func (s *Server) explain(err error, limit time.Duration) *reload.Failure {
	var f *reload.Failure
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, reload.ErrEnded):
		return failure(reload.CodeNotRunning, s.svc.Name(), "has ended")
	case errors.Is(err, context.DeadlineExceeded):
		return failure(reload.CodeFailed, s.svc.Name(), fmt.Sprintf("is not done within %s; it goes on with it", limit))
	}
	return failure(reload.CodeFailed, s.svc.Name(), err.Error())
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	// One that does not read its answer is not waited for.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	w.WriteHeader(status)
	// Nobody can be told if this fails: the one who asked has gone.
	_ = json.NewEncoder(w).Encode(body)
}

func (s *Server) info(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, Info{Schema: infoSchema, Service: s.svc.Name(), PID: os.Getpid(), Start: s.options.Start, Canary: s.options.Canary, Stop: s.options.Stop})
}

// looksAtOnce: each look through the kernel's connections costs some milliseconds in a
// system call, and so a thread.
const looksAtOnce = 4

func (s *Server) status(ctx context.Context, _ request) (any, error) {
	select {
	case s.looks <- struct{}{}:
		defer func() { <-s.looks }()
		return s.svc.Status(ctx)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *Server) reload(ctx context.Context, q request) (any, error) {
	reason := q.Reason
	if reason == "" {
		reason = "reload by " + who(ctx)
	}
	o := reload.ReloadOptions{
		Reason: reason, IfGeneration: q.IfGeneration, Supersede: q.Supersede, Canary: q.Canary.options(),
		Change: reload.Change{Command: q.Command, Set: q.Set, EnvFile: q.EnvFile},
	}
	if q.NoWait {
		s.svc.Trigger(o)
		return done{s.svc.Name()}, nil
	}
	return s.svc.Reload(ctx, o)
}

// canaryTime is that of the canary that the request wants, or of the service's own.
func (s *Server) canaryTime(q request) time.Duration {
	if q.Canary != nil {
		return CanaryLimit(*q.Canary.options())
	}
	return s.options.Canary
}

func (s *Server) canary(ctx context.Context, q request) (any, error) {
	return s.svc.Canary(ctx, q.Share)
}

func (s *Server) promote(ctx context.Context, _ request) (any, error) { return s.svc.Promote(ctx) }

func (s *Server) pause(ctx context.Context, _ request) (any, error) {
	return done{s.svc.Name()}, s.svc.Pause(ctx)
}

func (s *Server) resume(ctx context.Context, _ request) (any, error) {
	waited, err := s.svc.Resume(ctx)
	return resumed{waited}, err
}

func (s *Server) rollback(ctx context.Context, q request) (any, error) {
	return s.svc.Rollback(ctx, cmp.Or(q.Reason, "rollback by "+who(ctx)))
}

func who(ctx context.Context) string {
	peer, _ := ctx.Value(peerKey{}).(handoff.Credentials)
	return fmt.Sprintf("uid %d", peer.UID)
}

func (s *Server) start(ctx context.Context, _ request) (any, error) { return s.svc.Start(ctx) }

func (s *Server) stop(ctx context.Context, _ request) (any, error) {
	return done{s.svc.Name()}, s.svc.Stop(ctx)
}

func (s *Server) shutdown(ctx context.Context, _ request) (any, error) {
	if err := s.svc.Shutdown(ctx); err != nil {
		return nil, err
	}
	// First, so that whoever waits for the answer can run another at once.
	return done{s.svc.Name()}, s.socket.Remove()
}

func (s *Server) kill(ctx context.Context, q request) (any, error) {
	if q.Signal <= 0 {
		return nil, failure(reload.CodeFailed, s.svc.Name(), fmt.Sprintf("can't send signal %d", q.Signal))
	}
	n, err := s.svc.Kill(ctx, syscall.Signal(q.Signal))
	return killed{n}, err
}
