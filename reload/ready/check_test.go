package ready

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// answering serves and tells its address.
func answering(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestHTTPStatus(t *testing.T) {
	var status atomic.Int64
	at := answering(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/healthy")
		if r.URL.Path == "/healthy" {
			t.Error("it followed a redirect")
		}
		w.WriteHeader(int(status.Load()))
	})
	for _, c := range []struct {
		status   int
		statuses []StatusRange
		ok       bool
	}{
		{200, nil, true}, {204, nil, true}, {302, nil, true}, {399, nil, true}, {400, nil, false}, {404, nil, false}, {500, nil, false}, {599, nil, false},
		{302, []StatusRange{{200, 299}}, false}, {200, []StatusRange{{200, 299}}, true}, {299, []StatusRange{{200, 299}}, true},
		{401, []StatusRange{{200, 200}, {401, 401}}, true}, {503, []StatusRange{{500, 503}}, true}, {200, []StatusRange{{500, 503}}, false},
	} {
		status.Store(int64(c.status))
		err := Check{Kind: "http", Path: "/healthz", Statuses: c.statuses}.try(long(t), target(at))
		if (err == nil) != c.ok || err != nil && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "/healthz answered status ")) {
			t.Errorf("%d with %v: %v", c.status, c.statuses, err)
		}
	}
}

func TestHTTPRequest(t *testing.T) {
	var got atomic.Pointer[http.Request]
	at := answering(t, func(_ http.ResponseWriter, r *http.Request) { got.Store(r) })
	for _, host := range []string{"", "example.org"} {
		if err := (Check{Kind: "http", Path: "/healthz?deep=1", Host: host}).try(long(t), target(at)); err != nil {
			t.Fatal(err)
		}
		want := host
		if host == "" {
			want = at
		}
		r := got.Load()
		if r.Host != want || r.Method != "GET" || r.RequestURI != "/healthz?deep=1" || r.UserAgent() != "gapless-probe" {
			t.Errorf("%s %s of %s by %s", r.Method, r.RequestURI, r.Host, r.UserAgent())
		}
	}
}

// Time runs out in the probe, not in the service.
func TestHangingServer(t *testing.T) {
	release := make(chan struct{})
	at := answering(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	o := Options{Check: Check{Kind: "http", Path: "/"}, Timeout: 20 * time.Millisecond, Interval: time.Millisecond}
	if err := o.Once(long(t), target(at)); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
}

func TestExec(t *testing.T) {
	dir := t.TempDir()
	in := Target{Env: []string{"PATH=" + os.Getenv("PATH"), "COLOUR=green"}, Dir: dir}
	for command, want := range map[string]string{
		`test "$COLOUR" = green && test -z "$HOME" && touch here`: "",
		"exit 3":                        `"exit 3" ended with exit status 3: `,
		"echo one; echo two >&2; false": "ended with exit status 1: two",
		"kill -TERM $$":                 "signal: terminated",
	} {
		err := Check{Kind: "exec", Command: command}.try(long(t), in)
		if want == "" && err != nil || want != "" && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", command, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "here")); err != nil {
		t.Errorf("it did not run in its directory: %v", err)
	}
}

// A probe that hangs is killed, and what it started and left behind is not waited
// for.
func TestHangingExec(t *testing.T) {
	for _, command := range []string{"sleep 600", "sleep 20 & wait"} {
		err := Check{Kind: "exec", Command: command}.try(short(t), Target{Env: os.Environ()})
		if err == nil || errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "can't run probe") {
			t.Errorf("%s: %v", command, err)
		}
	}
}

// Successes count only in a row.
func TestRise(t *testing.T) {
	answers := []int{500, 200, 503, 200, 200, 404, 200, 200, 200, 500}
	var asked atomic.Int64
	at := answering(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(answers[asked.Add(1)-1]) })
	o := Options{Check: Check{Kind: "http", Path: "/"}, Interval: time.Millisecond, Rise: 3}
	if err := o.Wait(long(t), target(at)); err != nil {
		t.Fatal(err)
	}
	if asked.Load() != 9 {
		t.Errorf("it asked %d times", asked.Load())
	}
}

// When time is over, the error says what the last check ran into, and both can be
// told.
func TestWaitSaysWhatItRanInto(t *testing.T) {
	at := answering(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	o := Options{Check: Check{Kind: "http", Path: "/healthz"}, Interval: time.Millisecond}
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, enough)
	defer cancel()
	err := o.Wait(ctx, target(at))
	if !errors.Is(err, enough) || !strings.Contains(err.Error(), "/healthz") {
		t.Errorf("%v", err)
	}
}

// The defaults: a check every 100 ms, each given 2 s, one success.
func TestIntervals(t *testing.T) {
	for _, c := range []struct {
		options Options
		want    time.Duration
	}{
		{Options{}, 0},
		{Options{Rise: 1}, 0},
		{Options{Rise: 4}, 300 * time.Millisecond},
		{Options{Rise: 3, Interval: time.Minute}, 2 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			if err := c.options.Wait(t.Context(), Target{}); err != nil { // no address, nothing to accept
				t.Fatal(err)
			}
			if took := time.Since(began); took != c.want {
				t.Errorf("%+v took %s", c.options, took)
			}
		})
	}
	if orDefault(0, 2) != 2 || orDefault(-1, 2) != 2 || orDefault(1, 2) != 1 {
		t.Error("a default does not yield")
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("its time is over"))
		defer cancel()
		began := time.Now()
		err := Options{Check: Check{Kind: "http", Path: "/"}}.Wait(ctx, Target{})
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it took %s", took)
		}
		if err == nil || err.Error() != "its time is over\ncan't probe /: the service has no address" {
			t.Errorf("%v", err)
		}
	})
}
