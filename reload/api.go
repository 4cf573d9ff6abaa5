package reload

import (
	"fmt"
	"time"

	"github.com/gapless-dev/gapless/reload/state"
)

// Exit codes of the command, which a Failure carries so that whoever asked can end
// with it.
const (
	CodeFailed     = 1
	CodeNotRunning = 3
	CodeRefused    = 10 // refused before it ran, or failed its probe
	CodeNotReady   = 11 // ended before it was ready, or was too late
	CodeRolledBack = 12
	CodeBusy       = 75
)

// Status is the service as it is, with what was measured just now.
type Status struct {
	Schema int `json:"schema"`
	state.Service
	HolderPID int                `json:"holder_pid"`
	Measured  []MeasuredSockets  `json:"measured"`
	Queues    []MeasuredEndpoint `json:"queues"`
}

// MeasuredSockets is what a generation has open; Connections is -1 where it can't be told.
type MeasuredSockets struct {
	Generation  int `json:"generation"`
	Connections int `json:"connections"`
	// Idle are those of them over which no data has gone for [Config.DrainIdle].
	Idle int `json:"idle"`
	// Oldest is the least that the oldest of them can be of age. The kernel does not tell
	// more: they are known since a status or a reload has looked, or by their silence.
	Oldest     time.Duration `json:"oldest_at_least_ns"`
	Queue      int           `json:"queue"`       // not accepted yet, over all its listeners
	QueueLimit int           `json:"queue_limit"` // of them together
	// Age is how long ago it was started, by a clock that nobody sets; what it has
	// as times of day may be an hour off by now.
	Age time.Duration `json:"age_ns"`
}

// MeasuredEndpoint is the queue that waits for the next generation, where nobody is live.
type MeasuredEndpoint struct {
	Endpoint   string `json:"endpoint"`
	Queue      int    `json:"queue"`
	QueueLimit int    `json:"queue_limit"`
}

// Result is the answer to a reload or a start that went well.
type Result struct {
	Service    string        `json:"service"`
	Generation int           `json:"generation"`
	Took       time.Duration `json:"took_ns"` // from the request until it was ready
	// Tried is how long it was a canary then.
	Tried time.Duration `json:"canary_ns,omitempty"`
	// Draining are the generations that finish what they have, and DrainTimeout is
	// how long they have for it.
	Draining     []int         `json:"draining,omitempty"`
	Connections  int           `json:"draining_connections"`
	DrainTimeout time.Duration `json:"drain_timeout_ns"`
	// Kept is the generation that stands by for a way back, for Probation; Stood says
	// that the time is over and nothing went wrong.
	Kept      int           `json:"kept,omitempty"`
	Probation time.Duration `json:"probation_ns,omitempty"`
	Stood     bool          `json:"stood,omitempty"`
	// Back: it was live before, and is again.
	Back bool `json:"back,omitempty"`
	// Share of the new connections that it gets, if it is not live but a canary, or will
	// get when it is ready.
	Share *float64 `json:"canary_share,omitempty"`
	// Of is the generation that it was made like, and Note what may differ all the same.
	Of   int    `json:"of,omitempty"`
	Note string `json:"note,omitempty"`
}

// Failure is the answer to a request that did not succeed. What served before
// still does.
type Failure struct {
	Code       int      `json:"code"`
	Service    string   `json:"service"`
	Generation int      `json:"generation,omitempty"`
	Reason     string   `json:"reason"`
	Exit       string   `json:"exit,omitempty"`  // how the candidate ended, by name
	Lines      []string `json:"lines,omitempty"` // the last it said, at most 20
	// ExitCode of the daemon as a shell would report it; -1 if it did not end.
	ExitCode int `json:"exit_code"`
}

func (f *Failure) Error() string {
	if f.Generation == 0 {
		return fmt.Sprintf("%s: %s", f.Service, f.Reason)
	}
	return fmt.Sprintf("%s: generation %d %s", f.Service, f.Generation, f.Reason)
}

// Event is something that happened; Kind is stable.
type Event struct {
	Time       time.Time      `json:"time"`
	Seq        uint64         `json:"seq"`
	Service    string         `json:"service"`
	Kind       string         `json:"event"`
	Level      string         `json:"level"` // info, warn or error
	Generation int            `json:"generation,omitempty"`
	Text       string         `json:"message"`
	Fields     map[string]any `json:"fields,omitempty"`
}

// ReloadOptions for [Service.Reload].
type ReloadOptions struct {
	// Reason is shown in status and events: "SIGHUP", "reload by uid 0".
	Reason string
	// IfGeneration, if not 0, refuses the reload unless that one is live when its
	// turn comes.
	IfGeneration int
	// Supersede gives a candidate up that is not ready yet; otherwise this reload
	// waits for what becomes of it.
	Supersede bool
	// Canary, if not nil, is for this reload instead of the service's own.
	Canary *CanaryOptions
	// Change, if any, is for the new generation and, once it is live, for all that
	// follow.
	Change Change
}

// Change is what a reload makes different.
type Change struct {
	Command []string // the new command; none keeps the old one
	Set     []string // variables, NAME=VALUE, beside those that are set already
	EnvFile string   // an absolute path, read at each start; "" keeps the old one
}
