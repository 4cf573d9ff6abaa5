package reload

import (
	"context"
	"io"
	"net/netip"
	"syscall"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/bind"
	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/notify"
	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// system is what a service needs of the machine beside its own sockets: processes and
// whatever is waited for in the kernel. [New] takes the real one; with another, whose
// waiting is on channels, a service runs in a bubble of testing/synctest.
type system struct {
	start  func(context.Context, spawn.Options) (process, error)
	check  func(context.Context, spawn.Options) error
	output func(stdout, stderr io.Writer) (*spawn.Output, error)
	notify func() (notifier, error)
	// accepted and probe find out whether the candidate can serve, once whether it still
	// can.
	accepted func(context.Context, []netip.AddrPort) error
	probe    func(context.Context, ready.Options, ready.Target) error
	once     func(context.Context, ready.Options, ready.Target) error
	missing  func(process, []uint64) ([]int, error)
	settler  func(...*handoff.Listener) settler
	count    func(context.Context, conns.Question) (conns.Count, error)
	foreign  func(ctx context.Context, at netip.AddrPort, known func(context.Context) ([]uint64, error)) ([]*handoff.InUseError, error)
	// shutDown waits until a daemon has shut a listener down.
	shutDown func(context.Context, *handoff.Guard) error
}

// process is a daemon with all its processes ([spawn.Process]).
type process interface {
	PID() int
	Members() ([]int, error)
	// Cgroup is the number of its own one, 0 if it has none.
	Cgroup() uint64
	Program() *spawn.Program
	Exited() <-chan struct{}
	HasExited() bool
	Exit() spawn.Exit
	Gone() <-chan struct{}
	Signal(syscall.Signal) error
	SignalGroup(syscall.Signal) error
	Kill() error
	KillIf(func(pid int) bool) error
	Killed() []spawn.Member
	LowerOOM() error
	// BindWatch is of what it binds, nil if it is not seen; BindNote says why not, or what it costs.
	BindWatch() *bind.Watch
	BindNote() string
}

// notifier hears what one generation says ([notify.Socket]).
type notifier interface {
	Address() string
	Run(func(notify.Message))
	Close() error
}

// settler waits until nothing is on its way to old listeners ([handoff.Settler]).
type settler interface {
	Wait(context.Context) (handoff.Settled, error)
}

func realSystem() system {
	return system{
		start:    startProcess,
		check:    spawn.Check,
		output:   spawn.NewOutput,
		notify:   listenNotify,
		accepted: ready.Accepted,
		probe:    func(ctx context.Context, o ready.Options, t ready.Target) error { return o.Wait(ctx, t) },
		once:     func(ctx context.Context, o ready.Options, t ready.Target) error { return o.Once(ctx, t) },
		missing:  missingSockets,
		settler:  func(old ...*handoff.Listener) settler { return handoff.NewSettler(old...) },
		count:    countConnections,
		foreign:  handoff.Foreign,
		shutDown: func(ctx context.Context, g *handoff.Guard) error { _, err := g.Wait(ctx); return err },
	}
}

// A nil pointer in an interface would not be nil.
func startProcess(ctx context.Context, o spawn.Options) (process, error) {
	p, err := spawn.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func listenNotify() (notifier, error) {
	s, err := notify.Listen()
	if err != nil {
		return nil, err
	}
	return s, nil
}
