package spawn

import (
	"context"
	"errors"
	"fmt"

	"github.com/gapless-dev/gapless/handoff/bind"
)

// BindTrial is what became of a throw-away daemon that binds by itself.
type BindTrial struct {
	bind.Access
	NoFilter   string // why its binds are not seen at all; "" if they are
	NoNewPrivs bool   // that had to be set on it
}

// TryBind starts the command of o, which is to be a [bind.TrialDaemon], as a daemon whose
// binds are seen, and serves these. It is over when the process has gone; ctx ends it. The
// error says that it could not be tried.
func TryBind(ctx context.Context, o Options) (BindTrial, error) {
	o.Bind = true
	p, err := Start(ctx, o)
	if err != nil {
		return BindTrial{}, err
	}
	t, err := watchTrial(ctx, p)
	if err != nil {
		p.Kill()
	}
	select {
	case <-p.Gone():
	case <-ctx.Done():
		p.Kill()
		<-p.Gone()
	}
	p.bound.close() // not before: its binds would fail
	switch {
	case err != nil:
		return t, err
	case ctx.Err() != nil:
		return t, fmt.Errorf("can't try delivery by bind: %w", context.Cause(ctx))
	case p.Exit().Failed():
		return t, fmt.Errorf("can't try delivery by bind: %s ended with %s", o.Argv[0], p.Exit())
	}
	return t, nil
}

func watchTrial(ctx context.Context, p *Process) (t BindTrial, err error) {
	if p.bound.watch == nil {
		return BindTrial{NoFilter: p.bound.note}, nil
	}
	t.NoNewPrivs = p.bound.note == noNewPrivsNote
	t.Access, err = bind.Try(ctx, p.bound.watch)
	return t, err
}

// Place is where this process stands, as far as it can be found out; "" is not known.
type Place struct {
	Kernel    string `json:"kernel"`              // its release
	Container string `json:"container,omitempty"` // of whose making; "" if it is in none
	First     string `json:"first,omitempty"`     // the name of pid 1
	IsFirst   bool   `json:"is_first"`            // this process is it
	Systemd   bool   `json:"systemd"`             // it is in charge of the machine (sd_booted(3))
	Unit      bool   `json:"unit"`                // it has started this process, or one above it
	UID       int    `json:"uid"`
}

// ErrNotDelegated: no cgroup is this process's own.
var ErrNotDelegated = errors.New("no cgroup is its own")

// Tasks is a limit of how many processes and threads there may be, and how many there are;
// 0 is no limit.
type Tasks struct{ Limit, Used uint64 }
