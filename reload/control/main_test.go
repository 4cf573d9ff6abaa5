package control

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/handoff/leaktest"
	"github.com/gapless-dev/gapless/reload"
)

// TestMain fails the run if a test leaves a goroutine or a descriptor behind.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "16") // they wait for deadlines, not for the processor
	os.Exit(leaktest.Run(m, 0))
}

// fake is a service whose answers a test chooses.
type fake struct {
	status    func(context.Context) (reload.Status, error)
	reload    func(context.Context, reload.ReloadOptions) (reload.Result, error)
	stop      func(context.Context) error
	kill      func(context.Context, syscall.Signal) (int, error)
	follower  chan reload.Event
	triggered chan reload.ReloadOptions
	last      []reload.Event
}

func (f *fake) Name() string { return "web" }
func (f *fake) Status(ctx context.Context) (reload.Status, error) {
	return f.status(ctx)
}
func (f *fake) Reload(ctx context.Context, o reload.ReloadOptions) (reload.Result, error) {
	return f.reload(ctx, o)
}
func (f *fake) Trigger(o reload.ReloadOptions) { f.triggered <- o }
func (f *fake) Rollback(ctx context.Context, reason string) (reload.Result, error) {
	return f.reload(ctx, reload.ReloadOptions{Reason: reason})
}
func (f *fake) Canary(_ context.Context, share float64) (reload.Result, error) {
	return reload.Result{Generation: 8, Share: &share}, nil
}
func (f *fake) Promote(ctx context.Context) (reload.Result, error) {
	return f.reload(ctx, reload.ReloadOptions{Reason: "promote"})
}
func (f *fake) Pause(ctx context.Context) error         { return f.stop(ctx) }
func (f *fake) Resume(ctx context.Context) (int, error) { return 7, f.stop(ctx) }
func (f *fake) Start(ctx context.Context) (reload.Result, error) {
	return f.reload(ctx, reload.ReloadOptions{Reason: "start"})
}
func (f *fake) Stop(ctx context.Context) error     { return f.stop(ctx) }
func (f *fake) Shutdown(ctx context.Context) error { return f.stop(ctx) }
func (f *fake) Kill(ctx context.Context, s syscall.Signal) (int, error) {
	return f.kill(ctx, s)
}
func (f *fake) Events(ctx context.Context, follow bool) ([]reload.Event, <-chan reload.Event, error) {
	if !follow {
		return f.last, nil, nil
	}
	if f.follower == nil { // nothing happens
		none := make(chan reload.Event)
		context.AfterFunc(ctx, func() { close(none) })
		return f.last, none, nil
	}
	return f.last, f.follower, nil
}

// within bounds every wait of a test.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// serve answers for f until the test ends.
func serve(t *testing.T, f *fake, o Options) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "web.sock")
	socket, err := Listen(within(t), path)
	if err != nil {
		t.Fatal(err)
	}
	server := Serve(socket, f, o)
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket file is still there")
		}
	})
	return NewClient("web", path)
}
