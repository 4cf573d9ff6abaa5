package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/control"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// holder is the process of run.
type holder struct {
	terminal terminal
	flags    *runFlags
	config   reload.Config
}

// run reads as the process does: orphans first, for as pid 1 it may have some already;
// the control socket, since it tells whether the service runs already; then the
// addresses; then the daemon.
func (h *holder) run(ctx context.Context) error {
	outlivePipes()
	haveThreads(threadsAhead)
	log, closeLog := openLog(h.terminal.err, h.flags.logFormat.value, h.flags.logLevel.value)
	defer closeLog()
	if err := h.wire(log); err != nil {
		return err
	}
	reaper, err := spawn.NewReaper()
	if err != nil {
		return err
	}
	defer reaper.Close()
	socket, err := h.listen(ctx)
	if h.mayLack(err) {
		log.Warn().Err(err).Str("service", h.config.Name).Str("event", "control.none").
			Msgf("%s: it runs without a control socket: HUP reloads it, QUIT drains and ends it, USR1 logs its state", h.config.Name)
	} else if err != nil {
		return err
	}
	svc, err := reload.New(ctx, h.config)
	if err != nil {
		if socket != nil {
			socket.Remove()
		}
		return err
	}
	answering := h.serve(socket, svc, log)
	h.announce(svc, log)

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	signals := newSignals(h.terminal, svc, log)
	wg.Go(func() { signals.run(ctx) })
	if m := newManager(svc, log); m != nil {
		m.startLimit, m.stopLimit = h.startLimit(), h.stopLimit()
		wg.Go(func() { m.run(ctx) })
	}

	// Its error has been logged, as every other event.
	code, _ := svc.Run(context.WithoutCancel(ctx))

	answering()
	cancel()
	wg.Wait()
	return exitCode(code)
}

func (h *holder) wire(log zerolog.Logger) error {
	self, err := myself()
	if err != nil {
		return fmt.Errorf("can't find the gapless binary: %w", err)
	}
	h.config.Log = log
	h.config.Shim = []string{self, shimVerb}
	h.config.Relay = relayer{self: self, log: log}.relay
	h.config.Cgroups, h.config.Memory = spawn.FindCgroups(), spawn.FindMemory
	h.config.Stdout, h.config.Stderr = h.terminal.out, h.terminal.err
	return nil
}

func (h *holder) listen(ctx context.Context) (*control.Socket, error) {
	path, err := h.socketPath()
	if err != nil {
		return nil, err
	}
	socket, err := control.Listen(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.config.Name, err)
	}
	return socket, nil
}

// serve answers at the control socket, if there is one, until what it returns is called.
func (h *holder) serve(socket *control.Socket, svc *reload.Service, log zerolog.Logger) (end func()) {
	if socket == nil {
		return func() {}
	}
	server := control.Serve(socket, svc, control.Options{Start: h.startLimit(), Canary: h.canaryLimit(), Stop: h.stopLimit(), Log: log})
	return func() {
		if err := server.Close(); err != nil {
			log.Warn().Err(err).Str("event", "control.failed").Send()
		}
	}
}

// mayLack: in a container there may be no place for the control socket, and none was
// asked for.
func (h *holder) mayLack(err error) bool {
	if h.flags.control != "" || os.Getenv("GAPLESS_RUNTIME_DIR") != "" {
		return false
	}
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

func (h *holder) socketPath() (string, error) {
	if h.flags.control != "" {
		return filepath.Abs(h.flags.control)
	}
	dir := runtimeDirectory()
	return dir.Socket(h.config.Name), dir.Make()
}

// How long an operation may take: more than the service's own deadlines one after
// the other, twice for a reload that waits for another.
const (
	spawnTime  = 20 * time.Second
	settleTime = 15 * time.Second
	slack      = 10 * time.Second
)

func (h *holder) startLimit() time.Duration {
	limit := 2*(h.config.ReadyTimeout+spawnTime) + h.config.Probation + slack
	if h.config.Strategy == reload.StrategyReplace { // the old one ends first
		limit += h.stopLimit()
	}
	return limit
}

// canaryLimit is how much longer a reload may take by default for its canary.
func (h *holder) canaryLimit() time.Duration {
	if c := h.config.Canary; c != nil {
		return control.CanaryLimit(*c)
	}
	return 0
}

func (h *holder) stopLimit() time.Duration {
	return settleTime + max(h.config.DrainTimeout, h.config.StopTimeout) + 2*h.config.StopTimeout + slack
}

// announce says what people must know to use it: the ports that were taken.
func (h *holder) announce(svc *reload.Service, log zerolog.Logger) {
	for _, w := range svc.Warnings() {
		log.Warn().Str("service", svc.Name()).Str("event", "service.warning").Msgf("%s: %s", svc.Name(), w)
	}
	if w := withoutProc(); w != "" {
		log.Warn().Str("service", svc.Name()).Str("event", "service.warning").Msgf("%s: %s", svc.Name(), w)
	}
	for _, e := range svc.Addrs() {
		text := fmt.Sprintf("%s: listening on %s", svc.Name(), e.Addr)
		if e.Name != svc.Name() {
			text += " (" + e.Name + ")"
		}
		if e.Inherited {
			text += ", taken over from the service manager"
		}
		host, port, _ := net.SplitHostPort(e.Addr)
		log.Info().Str("service", svc.Name()).Str("event", "listening").Str("name", e.Name).
			Str("address", e.Addr).Str("host", host).Str("port", port).Str("steering", e.Steering).Msg(text)
	}
}
