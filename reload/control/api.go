package control

import (
	"context"
	"syscall"
	"time"

	"github.com/gapless-dev/gapless/reload"
)

// CodeNotPermitted is the exit code for those who may not ask.
const CodeNotPermitted = 4

// Service is what can be controlled; [reload.Service] is one.
type Service interface {
	Name() string
	Status(context.Context) (reload.Status, error)
	Reload(context.Context, reload.ReloadOptions) (reload.Result, error)
	Trigger(reload.ReloadOptions)
	Rollback(ctx context.Context, reason string) (reload.Result, error)
	Canary(ctx context.Context, share float64) (reload.Result, error)
	Promote(context.Context) (reload.Result, error)
	Pause(context.Context) error
	Resume(context.Context) (waited int, err error)
	Start(context.Context) (reload.Result, error)
	Stop(context.Context) error
	Kill(context.Context, syscall.Signal) (int, error)
	Shutdown(context.Context) error
	Events(ctx context.Context, follow bool) ([]reload.Event, <-chan reload.Event, error)
}

// Info is who holds a service.
type Info struct {
	Schema  int    `json:"schema"` // of this type, 1
	Service string `json:"service"`
	PID     int    `json:"pid"`
	// Start is how long a reload or start may take, and a reload by Canary more; Stop a
	// stop or shutdown.
	Start  time.Duration `json:"start_within_ns"`
	Canary time.Duration `json:"canary_within_ns,omitempty"`
	Stop   time.Duration `json:"stop_within_ns"`
}

// infoSchema is the version of Info as JSON.
const infoSchema = 1

// request is the body of every POST.
type request struct {
	Timeout      time.Duration `json:"timeout_ns,omitempty"`
	IfGeneration int           `json:"if_generation,omitempty"`
	NoWait       bool          `json:"no_wait,omitempty"`
	Reason       string        `json:"reason,omitempty"`
	Supersede    bool          `json:"supersede,omitempty"`
	Canary       *canary       `json:"canary,omitempty"`
	Share        float64       `json:"share,omitempty"`
	Command      []string      `json:"command,omitempty"`
	Set          []string      `json:"set,omitempty"`
	EnvFile      string        `json:"env_file,omitempty"`
	Signal       int           `json:"signal,omitempty"`
}

// canary is reload.CanaryOptions.
type canary struct {
	Share float64       `json:"share"`
	For   time.Duration `json:"for_ns,omitempty"`
}

func (c *canary) options() *reload.CanaryOptions {
	if c == nil {
		return nil
	}
	return &reload.CanaryOptions{Share: c.Share, For: c.For}
}

func canaryOf(o *reload.CanaryOptions) *canary {
	if o == nil {
		return nil
	}
	return &canary{Share: o.Share, For: o.For}
}

// decideTime is how long a canary without an end may wait for somebody's decision
// before those who wait for the reload are told that it goes on without them.
const decideTime = 24 * time.Hour

// CanaryLimit is how much longer a reload may take for its canary.
func CanaryLimit(o reload.CanaryOptions) time.Duration {
	if o.For == 0 {
		return decideTime
	}
	return o.For
}

// refused is every answer that is not what was asked for.
type refused struct {
	Failure *reload.Failure `json:"failure"`
}

type killed struct {
	Generation int `json:"generation"`
}

// resumed tells how many connections had waited through the pause.
type resumed struct {
	Waited int `json:"waited"`
}

// done answers what has nothing to tell.
type done struct {
	Service string `json:"service"`
}

func failure(code int, service, reason string) *reload.Failure {
	return &reload.Failure{Code: code, Service: service, Reason: reason, ExitCode: -1}
}
