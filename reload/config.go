package reload

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// Restart says when a daemon that has ended is started again.
type Restart string

// The policies. OnFailure is for an exit status other than 0, and signals.
const (
	RestartNo        Restart = "no"
	RestartOnFailure Restart = "on-failure"
	RestartAlways    Restart = "always"
)

// Delivery says how a daemon gets its listeners.
type Delivery string

// The ways. With LISTEN_FDS it is told of them (sd_listen_fds(3)); with Bind it needs to
// know nothing: what it binds is one (package bind). Auto is both: a daemon that takes
// what it is given binds nothing.
const (
	DeliveryAuto      Delivery = "auto"
	DeliveryListenFDs Delivery = "listen-fds"
	DeliveryBind      Delivery = "bind"
)

// Strategy says whether generations overlap.
type Strategy string

// With Replace the next generation starts when no process of the one before is left;
// clients wait meanwhile. It is for daemons of which only one may run.
const (
	StrategyOverlap Strategy = "overlap"
	StrategyReplace Strategy = "replace"
)

// KillMode says who ends with a generation.
type KillMode string

// The modes. KillGroup is for daemons whose processes may outlive them on purpose: who
// leaves the daemon's process group lives on, and can't be helped if it takes clients.
const (
	KillAll   KillMode = "all"
	KillGroup KillMode = "group"
)

// Config of a service. The zero value of a field is its default.
type Config struct {
	Name    string
	Command []string
	// Dir is where the command is looked up and run; made absolute by [New], and
	// resolved anew at each start.
	Dir string
	// Env is the daemon's environment, less what gapless sets. EnvFile, read at each
	// start, adds to it.
	Env     []string
	EnvFile string
	User    string
	Group   string
	// Specs are the endpoints. Shared makes generations share each listener, as on
	// systems that can't steer.
	Specs  []handoff.Spec
	Shared bool
	// Inherited are listening sockets that this process was started with; each is an
	// endpoint, whether a spec means it or not. They are the service's; if [New] fails,
	// some may stay open.
	Inherited []*handoff.Inherited

	Delivery     Delivery // auto
	Strategy     Strategy // overlap
	Ready        ready.Options
	ReadyTimeout time.Duration  // 30 s
	Canary       *CanaryOptions // of every reload; nil for none
	Probation    time.Duration  // how long the generation before is kept; 0 not at all
	Drain        Drain          // auto
	DrainTimeout time.Duration  // 30 s
	// DrainIdle: with DrainAuto, a connection over which no data has gone for longer, and
	// of which none is on its way, is not waited for. 5 s.
	DrainIdle   time.Duration
	StopSignal  syscall.Signal
	StopTimeout time.Duration // 8 s
	MaxDraining int           // 4
	// HoldTimeout: with no live generation for longer, connections are refused;
	// negative holds for ever. 60 s.
	HoldTimeout time.Duration
	Restart     Restart  // on-failure
	KillMode    KillMode // all
	PIDFile     string
	// NonBlocking: the daemon gets its listeners with O_NONBLOCK. Otherwise without,
	// as systemd passes them; a daemon whose workers wait for one listener by epoll
	// and don't set it themselves is stuck in accept(2) where another was quicker.
	NonBlocking bool
	Stdin       bool // the daemon gets the holder's standard input, not /dev/null

	// Stdout and Stderr get what the daemons say.
	Stdout, Stderr io.Writer
	// Shim is the command that runs [spawn.Shim].
	Shim []string
	// Cgroups, if not nil, are where each generation gets a cgroup of its own.
	Cgroups *spawn.Cgroups
	// Memory is what the holder's cgroup has; none if nil.
	Memory func() (spawn.Memory, bool)
	// Relay hands connections that no daemon can accept any more to whoever serves
	// the address. The descriptors are Relay's to close, also on error.
	Relay func(ctx context.Context, to string, clients []handoff.File) error
	Log   zerolog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if len(c.Command) == 0 {
		return c, fmt.Errorf("can't run a service without a command")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, fmt.Errorf("can't resolve the directory: %w", err)
	}
	c.Dir = dir
	if err := c.checkTrials(); err != nil {
		return c, err
	}
	setDefault(&c.Name, NameOf(c.Command))
	setDefault(&c.Delivery, DeliveryAuto)
	setDefault(&c.Strategy, StrategyOverlap)
	setDefault(&c.ReadyTimeout, 30*time.Second)
	setDefault(&c.Drain, DrainAuto)
	setDefault(&c.DrainTimeout, 30*time.Second)
	setDefault(&c.DrainIdle, 5*time.Second)
	setDefault(&c.StopSignal, syscall.SIGTERM)
	setDefault(&c.StopTimeout, 8*time.Second)
	setDefault(&c.MaxDraining, 4)
	setDefault(&c.HoldTimeout, 60*time.Second)
	setDefault(&c.Restart, RestartOnFailure)
	setDefault(&c.KillMode, KillAll)
	setDefault(&c.Ready.Mode, ready.Auto)
	setDefault(&c.Stdout, io.Discard)
	setDefault(&c.Stderr, io.Discard)
	return c, nil
}

// checkTrials: two generations at once are what a canary and a probation are.
func (c Config) checkTrials() error {
	if c.Canary != nil {
		if err := c.Canary.check(); err != nil {
			return err
		}
	}
	if c.Strategy == StrategyReplace && (c.Canary != nil || c.Probation > 0) {
		return fmt.Errorf("can't replace with a canary or a probation: they need two generations at once")
	}
	if c.Shared && c.Canary != nil {
		return fmt.Errorf("can't have a canary where generations share listeners: who accepts first has the connection")
	}
	return nil
}

func setDefault[T comparable](at *T, value T) {
	var zero T
	if *at == zero {
		*at = value
	}
}

// NameOf is a service's name if none is given: the base name of its command, or of
// the script where the command is an interpreter.
func NameOf(command []string) string {
	base := filepath.Base(command[0])
	if !isInterpreter(base) {
		return base
	}
	for _, arg := range command[1:] {
		if !strings.HasPrefix(arg, "-") {
			name := filepath.Base(arg)
			return strings.TrimSuffix(name, filepath.Ext(name))
		}
	}
	return base
}

func isInterpreter(base string) bool {
	known := []string{"bash", "bun", "dash", "deno", "env", "java", "lua", "node", "nodejs", "perl", "php", "python", "ruby", "sh", "zsh"}
	return slices.Contains(known, strings.TrimRight(base, "0123456789."))
}
