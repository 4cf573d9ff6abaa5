package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/state"
)

// wantFailure checks code and a part of the reason.
func wantFailure(t *testing.T, err error, code int, part string) {
	t.Helper()
	var f *reload.Failure
	if !errors.As(err, &f) || f.Code != code || !strings.Contains(f.Reason, part) {
		t.Errorf("got %#v, want code %d and %q", err, code, part)
	}
}

func TestAnswersTravel(t *testing.T) {
	result := reload.Result{Service: "web", Generation: 8, Took: 41 * time.Millisecond, Draining: []int{7}, Connections: 37, DrainTimeout: 30 * time.Second}
	status := reload.Status{Schema: 1, Service: state.Service{Name: "web", Next: 9}, HolderPID: 42}
	var asked reload.ReloadOptions
	var sent syscall.Signal
	c := serve(t, &fake{
		status: func(context.Context) (reload.Status, error) { return status, nil },
		reload: func(_ context.Context, o reload.ReloadOptions) (reload.Result, error) { asked = o; return result, nil },
		stop:   func(context.Context) error { return nil },
		kill:   func(_ context.Context, s syscall.Signal) (int, error) { sent = s; return 8, nil },
	}, Options{})
	ctx := within(t)

	r, err := c.Reload(ctx, ReloadOptions{ReloadOptions: reload.ReloadOptions{IfGeneration: 7}})
	if err != nil || !reflect.DeepEqual(r, result) || asked.IfGeneration != 7 || !strings.HasPrefix(asked.Reason, "reload by uid ") {
		t.Errorf("reload: %+v, %v; asked %+v", r, err, asked)
	}
	if r, err := c.Start(ctx, 0); err != nil || r.Generation != 8 {
		t.Errorf("start: %+v, %v", r, err)
	}
	if s, err := c.Status(ctx); err != nil || s.HolderPID != 42 || s.Next != 9 {
		t.Errorf("status: %+v, %v", s, err)
	}
	if n, err := c.Kill(ctx, syscall.SIGUSR1); err != nil || n != 8 || sent != syscall.SIGUSR1 {
		t.Errorf("kill: %d, %v, sent %v", n, err, sent)
	}
	if err := errors.Join(c.Stop(ctx, 0), c.Pause(ctx)); err != nil {
		t.Error(err)
	}
	if r, err := c.Canary(ctx, 0.25); err != nil || *r.Share != 0.25 {
		t.Errorf("canary: %+v, %v", r, err)
	}
	if r, err := c.Promote(ctx, 0); err != nil || r.Generation != 8 || asked.Reason != "promote" {
		t.Errorf("promote: %+v, %v; asked %+v", r, err, asked)
	}
	if n, err := c.Resume(ctx); n != 7 || err != nil {
		t.Errorf("resume: %d, %v", n, err)
	}
	for _, o := range []*reload.CanaryOptions{nil, {Share: 0.5, For: time.Hour}} {
		c.Reload(ctx, ReloadOptions{ReloadOptions: reload.ReloadOptions{Canary: o}})
		if !reflect.DeepEqual(asked.Canary, o) {
			t.Errorf("asked for the canary %+v, want %+v", asked.Canary, o)
		}
	}
	if err := c.Shutdown(ctx, 0); err != nil {
		t.Error(err)
	}
}

// A reload with a canary takes its time longer, on both sides.
func TestCanaryHasItsTime(t *testing.T) {
	c := serve(t, &fake{
		reload: func(ctx context.Context, o reload.ReloadOptions) (reload.Result, error) {
			end, _ := ctx.Deadline()
			return reload.Result{Took: time.Until(end).Round(time.Minute)}, nil
		},
	}, Options{Start: 2 * time.Minute, Canary: 5 * time.Minute})
	for o, want := range map[*reload.CanaryOptions]time.Duration{
		nil:                7 * time.Minute,
		{For: time.Hour}:   62 * time.Minute,
		{Share: 1, For: 0}: 24*time.Hour + 2*time.Minute,
	} {
		r, err := c.Reload(within(t), ReloadOptions{ReloadOptions: reload.ReloadOptions{Canary: o}})
		if err != nil || r.Took != want {
			t.Errorf("%+v may take %s, want %s; %v", o, r.Took, want, err)
		}
		info, err := c.Info(within(t))
		if got := info.limit("reload", request{Canary: canaryOf(o)}); got != want || err != nil {
			t.Errorf("%+v is waited for %s, want %s; %v", o, got, want, err)
		}
	}
}

func TestFailuresTravel(t *testing.T) {
	want := &reload.Failure{Code: 11, Service: "web", Generation: 3, Reason: "ended before it was ready: exit status 3", Exit: "exit status 3",
		Lines: []string{"no such table: users", "  bye"}, ExitCode: 3}
	c := serve(t, &fake{
		reload: func(context.Context, reload.ReloadOptions) (reload.Result, error) { return reload.Result{}, want },
		stop:   func(context.Context) error { return reload.ErrEnded },
		kill:   func(context.Context, syscall.Signal) (int, error) { return 0, errors.New("no way") },
	}, Options{})
	ctx := within(t)
	_, err := c.Reload(ctx, ReloadOptions{})
	var got *reload.Failure
	if !errors.As(err, &got) || !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, want %#v", err, want)
	}
	wantFailure(t, c.Stop(ctx, 0), reload.CodeNotRunning, "has ended")
	_, err = c.Kill(ctx, syscall.SIGTERM)
	wantFailure(t, err, reload.CodeFailed, "no way")
	_, err = c.Kill(ctx, 0)
	wantFailure(t, err, reload.CodeFailed, "can't send signal 0")
}

func TestEveryOperationHasADeadline(t *testing.T) {
	endless := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
	c := serve(t, &fake{
		reload: func(ctx context.Context, _ reload.ReloadOptions) (reload.Result, error) {
			return reload.Result{}, endless(ctx)
		},
		stop: endless,
	}, Options{Start: 20 * time.Millisecond, Stop: 30 * time.Millisecond})
	ctx := within(t)
	_, err := c.Reload(ctx, ReloadOptions{})
	wantFailure(t, err, reload.CodeFailed, "is not done within 20ms; it goes on")
	wantFailure(t, c.Stop(ctx, 0), reload.CodeFailed, "is not done within 30ms")
	wantFailure(t, c.Shutdown(ctx, time.Millisecond), reload.CodeFailed, "is not done within 1ms")
}

func TestCallerGoesAway(t *testing.T) {
	asked, left := make(chan struct{}), make(chan struct{})
	c := serve(t, &fake{reload: func(ctx context.Context, _ reload.ReloadOptions) (reload.Result, error) {
		close(asked)
		<-ctx.Done()
		close(left)
		return reload.Result{}, context.Cause(ctx)
	}}, Options{})
	ctx, cancel := context.WithCancel(within(t))
	go func() {
		<-asked
		cancel()
	}()
	_, err := c.Reload(ctx, ReloadOptions{})
	wantFailure(t, err, reload.CodeFailed, "interrupted; what was asked for goes on")
	<-left
}

// TestHolderDies: it takes the request, and answers no more.
func TestHolderDies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/service") {
			answer(w, http.StatusOK, Info{Start: time.Minute})
			return
		}
		panic(http.ErrAbortHandler)
	})}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	_, err = NewClient("web", path).Reload(within(t), ReloadOptions{})
	wantFailure(t, err, reload.CodeFailed, "its holder ended before it answered")
	server.Close()
	<-done
	_, err = NewClient("web", path).Reload(within(t), ReloadOptions{})
	wantFailure(t, err, reload.CodeNotRunning, "is not running")
}

func TestForeignService(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	_, err = NewClient("web", path).Status(within(t))
	wantFailure(t, err, reload.CodeFailed, "is not a gapless of this version: it answered status 404")
	server.Close()
	<-done
}

func TestUnknownOperation(t *testing.T) {
	c := serve(t, &fake{}, Options{})
	resp, err := c.http.Post("http://gapless/v2/reload", "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusNotFound || !strings.Contains(string(b), "speaks /v1") {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
	bad, err := c.http.Post("http://gapless/v1/reload", "application/json", strings.NewReader("nonsense"))
	if err != nil {
		t.Fatal(err)
	}
	bad.Body.Close()
	if bad.StatusCode != http.StatusBadRequest {
		t.Errorf("nonsense was answered with %d", bad.StatusCode)
	}
}

// TestGuard: the kernel's word decides, and without it nobody is let in.
func TestGuard(t *testing.T) {
	s := &Server{svc: &fake{}, options: Options{UIDs: []uint32{1000}}}
	h := s.guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, done{}) }))
	ask := func(peer any) int {
		r := httptest.NewRequest(http.MethodGet, "/v1/status", nil)
		if peer != nil {
			r = r.WithContext(context.WithValue(r.Context(), peerKey{}, peer))
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var no refused
		if w.Code == http.StatusForbidden && (json.Unmarshal(w.Body.Bytes(), &no) != nil || no.Failure.Code != CodeNotPermitted) {
			t.Errorf("refused without a reason: %s", w.Body)
		}
		return w.Code
	}
	for uid, want := range map[uint32]int{0: 200, 1000: 200, 1001: 403, 65534: 403} {
		if got := ask(handoff.Credentials{UID: uid}); got != want {
			t.Errorf("uid %d: %d, want %d", uid, got, want)
		}
	}
	if got := ask(nil); got != 403 {
		t.Errorf("unknown peer: %d", got)
	}
}

func TestEvents(t *testing.T) {
	f := &fake{last: []reload.Event{{Seq: 1, Kind: "a"}, {Seq: 2, Kind: "b"}}, follower: make(chan reload.Event)}
	c := serve(t, f, Options{})
	var seen []uint64
	for e, err := range c.Events(within(t), false) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, e.Seq)
	}
	for e, err := range c.Events(within(t), true) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, e.Seq)
		switch e.Seq { // each comes before the next one has happened
		case 2:
			f.follower <- reload.Event{Seq: 3}
		case 3:
			close(f.follower) // the service ends
		}
	}
	if want := []uint64{1, 2, 1, 2, 3}; !reflect.DeepEqual(seen, want) {
		t.Errorf("seen %v, want %v", seen, want)
	}
}

// What a client asks for reaches the service as it was asked, waited for or not.
func TestReloadOptions(t *testing.T) {
	f := &fake{triggered: make(chan reload.ReloadOptions, 1)}
	f.reload = func(_ context.Context, o reload.ReloadOptions) (reload.Result, error) {
		f.triggered <- o
		return reload.Result{}, nil
	}
	c := serve(t, f, Options{})
	want := reload.ReloadOptions{
		Reason: "test", IfGeneration: 7, Supersede: true,
		Change: reload.Change{Command: []string{"web", "-v"}, Set: []string{"A=1"}, EnvFile: "/etc/web.env"},
	}
	for _, noWait := range []bool{false, true} {
		if _, err := c.Reload(within(t), ReloadOptions{ReloadOptions: want, NoWait: noWait}); err != nil {
			t.Fatal(err)
		}
		if got := <-f.triggered; !reflect.DeepEqual(got, want) {
			t.Errorf("no wait %t: asked for %+v", noWait, got)
		}
	}
	if _, err := c.Reload(within(t), ReloadOptions{NoWait: true}); err != nil {
		t.Fatal(err)
	}
	if o := <-f.triggered; !strings.HasPrefix(o.Reason, "reload by uid") {
		t.Errorf("asked for %+v", o)
	}
}
