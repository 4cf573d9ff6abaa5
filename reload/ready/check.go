package ready

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/gapless-dev/gapless/handoff"
)

// Target is the candidate, as a probe sees it.
type Target struct {
	Addrs []netip.AddrPort // of its endpoints; http goes to the first
	Env   []string         // for exec
	Dir   string
}

// Check is one kind of probe.
type Check struct {
	Kind     string // tcp, http or exec
	Path     string // of http
	Host     string // of http; "" is the address
	Statuses []StatusRange
	Command  string // of exec, run by sh -c
}

// StatusRange is a range of HTTP status codes, both ends included.
type StatusRange struct{ From, To int }

// ParseCheck reads the value of --probe: tcp, http:/healthz or exec:command.
func ParseCheck(text string) (Check, error) {
	kind, rest, _ := strings.Cut(text, ":")
	switch {
	case text == "tcp":
		return Check{Kind: "tcp"}, nil
	case kind == "http" && strings.HasPrefix(rest, "/"):
		return Check{Kind: "http", Path: rest}, nil
	case kind == "exec" && strings.TrimSpace(rest) != "":
		return Check{Kind: "exec", Command: rest}, nil
	}
	return Check{}, fmt.Errorf("bad --probe %q: want tcp, http:/path or exec:command", text)
}

// ParseStatuses reads the value of --probe-status: 200, 200-399 or 200,204.
func ParseStatuses(text string) ([]StatusRange, error) {
	var all []StatusRange
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if errA != nil || errB != nil || a < 100 || b > 599 || a > b {
			return nil, fmt.Errorf("bad --probe-status %q: want 200, 200-399 or 200,204", text)
		}
		all = append(all, StatusRange{a, b})
	}
	return all, nil
}

func (c Check) try(ctx context.Context, t Target) error {
	switch c.Kind {
	case "http":
		return c.http(ctx, t)
	case "exec":
		return c.exec(ctx, t)
	}
	return Accepted(ctx, t.Addrs)
}

func (c Check) http(ctx context.Context, t Target) error {
	if len(t.Addrs) == 0 {
		return fmt.Errorf("can't probe %s: the service has no address", c.Path)
	}
	at := t.Addrs[0]
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return handoff.Dial(ctx, at, t.Addrs[1:]...)
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	host := c.Host
	if host == "" {
		host = at.String()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+c.Path, nil)
	if err != nil {
		return fmt.Errorf("can't probe %s: %w", c.Path, err)
	}
	req.Header.Set("User-Agent", "gapless-probe")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("can't probe %s: %w", c.Path, err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	return c.judge(resp.StatusCode)
}

func (c Check) judge(status int) error {
	accepted := c.Statuses
	if len(accepted) == 0 {
		accepted = []StatusRange{{200, 399}}
	}
	for _, r := range accepted {
		if r.From <= status && status <= r.To {
			return nil
		}
	}
	return fmt.Errorf("%w: %s answered status %d", ErrRefused, c.Path, status)
}

// waitDelay is for what a killed probe command leaves behind.
const waitDelay = 100 * time.Millisecond

func (c Check) exec(ctx context.Context, t Target) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", c.Command)
	cmd.Env, cmd.Dir, cmd.WaitDelay = t.Env, t.Dir, waitDelay
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if errors.As(err, &ended) && (ctx.Err() == nil || ended.Exited()) { // not killed because its time was over
		return fmt.Errorf("%w: %q ended with %s: %s", ErrRefused, c.Command, ended, lastLine(out))
	}
	if err != nil {
		return fmt.Errorf("can't run probe %q: %w", c.Command, err)
	}
	return nil
}

func lastLine(b []byte) string {
	text := strings.TrimSpace(string(b))
	return text[strings.LastIndexByte(text, '\n')+1:]
}
