package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/gapless-dev/gapless/reload"
)

// grace is what a client waits longer than the holder, whose answer says more.
const grace = 5 * time.Second

// Client talks to one holder. Its errors are [*reload.Failure]; it owns nothing
// between two calls, and any goroutine may use it.
type Client struct {
	name string
	path string
	http *http.Client
}

// NewClient is for the service called name, at the socket file path.
func NewClient(name, path string) *Client {
	dialer := net.Dialer{Timeout: dialTime}
	return &Client{name: name, path: path, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
	}}}
}

// Name of the service, as the caller gave it.
func (c *Client) Name() string { return c.name }

// Info is who holds the service. It answers at once if the holder is well.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var i Info
	err := c.call(ctx, quick, http.MethodGet, "service", nil, &i)
	return i, err
}

// Status is that of the service.
func (c *Client) Status(ctx context.Context) (reload.Status, error) {
	var s reload.Status
	err := c.call(ctx, quick+grace, http.MethodGet, "status", nil, &s)
	return s, err
}

// ReloadOptions for [Client.Reload].
type ReloadOptions struct {
	reload.ReloadOptions
	// NoWait returns once the holder knows of it; the Result is empty.
	NoWait bool
	// Timeout of 0 is the holder's own.
	Timeout time.Duration
}

// Reload replaces the live generation and waits for the outcome. If the caller goes
// away or the timeout passes, it goes on in the holder.
func (c *Client) Reload(ctx context.Context, o ReloadOptions) (reload.Result, error) {
	var r reload.Result
	q := request{
		Timeout: o.Timeout, IfGeneration: o.IfGeneration, NoWait: o.NoWait, Reason: o.Reason, Supersede: o.Supersede, Canary: canaryOf(o.Canary),
		Command: o.Change.Command, Set: o.Change.Set, EnvFile: o.Change.EnvFile,
	}
	err := c.operate(ctx, "reload", q, &r)
	return r, err
}

// Rollback goes back to the generation that was live before.
func (c *Client) Rollback(ctx context.Context, timeout time.Duration) (reload.Result, error) {
	var r reload.Result
	err := c.operate(ctx, "rollback", request{Timeout: timeout}, &r)
	return r, err
}

// Canary gives the candidate a share, 0 to 1, of the new connections.
func (c *Client) Canary(ctx context.Context, share float64) (reload.Result, error) {
	var r reload.Result
	err := c.call(ctx, quick+grace, http.MethodPost, "canary", request{Share: share}, &r)
	return r, err
}

// Promote gives the canary the rest, and waits as the reload does that began it.
func (c *Client) Promote(ctx context.Context, timeout time.Duration) (reload.Result, error) {
	var r reload.Result
	err := c.operate(ctx, "promote", request{Timeout: timeout}, &r)
	return r, err
}

// Pause has new connections wait until Resume.
func (c *Client) Pause(ctx context.Context) error {
	return c.call(ctx, quick+grace, http.MethodPost, "pause", request{}, &done{})
}

// Resume ends a pause and tells how many waited.
func (c *Client) Resume(ctx context.Context) (waited int, err error) {
	var r resumed
	err = c.call(ctx, quick+grace, http.MethodPost, "resume", request{}, &r)
	return r.Waited, err
}

// Start is for a service that was stopped.
func (c *Client) Start(ctx context.Context, timeout time.Duration) (reload.Result, error) {
	var r reload.Result
	err := c.operate(ctx, "start", request{Timeout: timeout}, &r)
	return r, err
}

// Stop drains and stops the daemon; its sockets stay held.
func (c *Client) Stop(ctx context.Context, timeout time.Duration) error {
	return c.operate(ctx, "stop", request{Timeout: timeout}, &done{})
}

// Shutdown drains the daemon and ends the holder.
func (c *Client) Shutdown(ctx context.Context, timeout time.Duration) error {
	return c.operate(ctx, "shutdown", request{Timeout: timeout}, &done{})
}

// Kill sends a signal to the live daemon and tells its generation.
func (c *Client) Kill(ctx context.Context, s syscall.Signal) (int, error) {
	var k killed
	err := c.call(ctx, quick+grace, http.MethodPost, "kill", request{Signal: int(s)}, &k)
	return k.Generation, err
}

// operate is for what waits for the daemon. It asks first how long that may take,
// so that a holder that hangs is found out at once.
func (c *Client) operate(ctx context.Context, what string, q request, result any) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	limit := q.Timeout
	if limit == 0 {
		limit = info.limit(what, q)
	}
	return c.call(ctx, limit+grace, http.MethodPost, what, q, result)
}

// limit is how long the holder lets an operation take.
func (i Info) limit(what string, q request) time.Duration {
	switch {
	case what == "stop" || what == "shutdown":
		return i.Stop
	case what == "reload" && q.Canary != nil:
		return i.Start + CanaryLimit(*q.Canary.options())
	case what == "reload":
		return i.Start + i.Canary
	}
	return i.Start
}

func (c *Client) call(ctx context.Context, limit time.Duration, method, what string, q, result any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	resp, err := c.send(ctx, method, what, q)
	if err != nil {
		return c.explain(ctx, limit, err)
	}
	defer resp.Body.Close()
	if err := c.refusal(resp); err != nil {
		return err
	}
	if err := json.NewDecoder(resp.Body).Decode(result); err != nil {
		return c.explain(ctx, limit, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, what string, q any) (*http.Response, error) {
	var body io.Reader
	if q != nil {
		b, err := json.Marshal(q)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://gapless/v1/"+what, body)
	if err != nil {
		return nil, err
	}
	return c.http.Do(r)
}

// refusal is what the holder says instead of an answer.
func (c *Client) refusal(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var no refused
	if err := json.NewDecoder(resp.Body).Decode(&no); err != nil || no.Failure == nil {
		return failure(reload.CodeFailed, c.name, fmt.Sprintf("its control socket %s is not a gapless of this version: it answered status %d", c.path, resp.StatusCode))
	}
	return no.Failure
}

// explain says what a call ran into that got no answer.
func (c *Client) explain(ctx context.Context, limit time.Duration, err error) error {
	var dialing *net.OpError
	switch {
	case isStale(err):
		return failure(reload.CodeNotRunning, c.name, "is not running")
	case errors.Is(err, fs.ErrPermission):
		return failure(CodeNotPermitted, c.name, fmt.Sprintf("permission denied at %s; ask as the user who runs it, or as root", c.path))
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return failure(reload.CodeFailed, c.name, fmt.Sprintf("its holder did not answer within %s", limit))
	case ctx.Err() != nil:
		return failure(reload.CodeFailed, c.name, "interrupted; what was asked for goes on")
	case errors.As(err, &dialing) && dialing.Op == "dial":
		return failure(reload.CodeFailed, c.name, fmt.Sprintf("can't ask its holder: %v", dialing))
	}
	return failure(reload.CodeFailed, c.name, fmt.Sprintf("its holder ended before it answered (%v); gapless status says what runs", err))
}

// Events are the last ones and, with follow, those to come until the service or
// ctx ends. An error is the last thing that the sequence yields.
func (c *Client) Events(ctx context.Context, follow bool) iter.Seq2[reload.Event, error] {
	return func(yield func(reload.Event, error) bool) {
		if err := c.events(ctx, follow, yield); err != nil && ctx.Err() == nil {
			yield(reload.Event{}, err)
		}
	}
}

func (c *Client) events(ctx context.Context, follow bool, yield func(reload.Event, error) bool) error {
	if _, err := c.Info(ctx); err != nil { // a stream has no deadline, so ask whether anybody is there
		return err
	}
	what := "events"
	if follow {
		what += "?follow=1"
	}
	resp, err := c.send(ctx, http.MethodGet, what, nil)
	if err != nil {
		return c.explain(ctx, quick, err)
	}
	defer resp.Body.Close()
	if err := c.refusal(resp); err != nil {
		return err
	}
	lines := json.NewDecoder(resp.Body)
	for {
		var e reload.Event
		err := lines.Decode(&e)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return c.explain(ctx, quick, err)
		}
		if !yield(e, nil) {
			return nil
		}
	}
}
