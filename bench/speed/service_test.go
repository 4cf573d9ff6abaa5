package speed

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/ready"
)

// service runs in this process until the benchmark ends.
type service struct {
	*reload.Service
	b      *testing.B
	ctx    context.Context
	events <-chan reload.Event
	live   int
}

// startService on a free port, unless change says otherwise.
func startService(b *testing.B, command []string, mode ready.Mode, change ...func(*reload.Config)) *service {
	b.Helper()
	spec, err := handoff.ParseSpec("http=127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx := bounded(b, 2*time.Minute)
	cfg := reload.Config{
		Name: "web", Command: command, Env: os.Environ(), Specs: []handoff.Spec{spec},
		Ready: ready.Options{Mode: mode}, Shim: []string{"/proc/self/exe", "__shim"},
		Stdout: io.Discard, Stderr: os.Stderr, Log: zerolog.Nop(),
	}
	for _, f := range change {
		f(&cfg)
	}
	svc, err := reload.New(ctx, cfg)
	if err != nil {
		b.Fatal(err)
	}
	s := &service{Service: svc, b: b, ctx: ctx}
	done := make(chan struct{})
	go func() {
		defer close(done)
		svc.Run(context.WithoutCancel(ctx))
	}()
	b.Cleanup(func() { svc.Interrupt(); <-done })
	past, events, err := svc.Events(ctx, true)
	if err != nil {
		b.Fatal(err)
	}
	s.events = events
	for _, e := range past {
		if e.Kind == "generation.live" {
			s.live = e.Generation
		}
	}
	if s.live == 0 {
		s.live = s.wait("generation.live").Generation
	}
	return s
}

// wait returns the next event of a kind.
func (s *service) wait(kind string) reload.Event {
	s.b.Helper()
	for {
		select {
		case e, more := <-s.events:
			if !more {
				s.b.Fatalf("the service ended before %s", kind)
			}
			if e.Kind == kind {
				return e
			}
		case <-s.ctx.Done():
			s.b.Fatalf("no %s came", kind)
		}
	}
}

func (s *service) reload() {
	r, err := s.Reload(s.ctx, reload.ReloadOptions{Reason: "benchmark"})
	if err != nil {
		s.b.Fatal(err)
	}
	if r.Generation != s.live+1 {
		s.b.Fatalf("generation %d is live after %d", r.Generation, s.live)
	}
	s.live = r.Generation
}

// quiet waits until the generation before has ended.
func (s *service) quiet() {
	if e := s.wait("generation.gone"); e.Generation != s.live-1 {
		s.b.Fatalf("generation %d is gone, not the one before %d", e.Generation, s.live)
	}
}
