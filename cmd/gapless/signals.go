package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/gapless-dev/gapless/reload"
)

// signals does what people and supervisors ask for by signal. They are caught and
// never ignored: what a process ignores its children ignore too.
type signals struct {
	svc      *reload.Service
	log      zerolog.Logger
	caught   chan os.Signal
	dump     chan struct{} // state to the log, one at a time
	shutdown chan struct{}
	// terminal: it was started at one, whose end is announced by SIGHUP.
	terminal bool
}

// newSignals catches them from now on.
func newSignals(t terminal, svc *reload.Service, log zerolog.Logger) *signals {
	s := &signals{
		svc: svc, log: log, caught: make(chan os.Signal, 16),
		dump: make(chan struct{}, 1), shutdown: make(chan struct{}, 1), terminal: isTerminal(t.in) || isTerminal(t.err),
	}
	signal.Notify(s.caught, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	return s
}

// outlivePipes comes before the first word is said. A Go program ends by SIGPIPE when
// whoever reads its standard output or error has gone, unless it catches that (package
// os/signal); the service is not to end because its log has no reader any more.
func outlivePipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// run handles them until ctx ends; later ones are caught and have no effect.
func (s *signals) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.each(ctx, s.dump, s.dumpState) })
	wg.Go(func() { s.each(ctx, s.shutdown, s.drain) })
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-s.caught:
			s.handle(sig)
		}
	}
}

// each does what is asked for in the background, so that a signal that matters
// more is not kept waiting.
func (s *signals) each(ctx context.Context, asked <-chan struct{}, do func(context.Context)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
			do(ctx)
		}
	}
}

func ask(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is asked for already
	}
}

func (s *signals) handle(sig os.Signal) {
	switch sig {
	case syscall.SIGHUP:
		if s.terminal && terminalGone() {
			s.log.Info().Str("event", "signal.hangup").Msg("the terminal has gone: ending")
			s.svc.Interrupt()
			return
		}
		s.svc.Trigger(reload.ReloadOptions{Reason: "SIGHUP"})
	case syscall.SIGTERM, syscall.SIGINT:
		s.svc.Interrupt()
	case syscall.SIGQUIT:
		ask(s.shutdown)
	case syscall.SIGUSR1:
		ask(s.dump)
	case syscall.SIGUSR2:
		s.log.Warn().Str("event", "signal.unknown").Msg("SIGUSR2 has no effect: this version can't replace its own binary")
	}
}

// terminalGone: a process without a controlling terminal can't open /dev/tty
// (ENXIO, tty(4)), nor can one whose terminal was hung up (EIO).
func terminalGone() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err == nil {
		f.Close()
	}
	return errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.EIO)
}

func (s *signals) drain(ctx context.Context) {
	if err := s.svc.Shutdown(ctx); err != nil && ctx.Err() == nil {
		s.log.Error().Err(err).Str("event", "signal.failed").Msg("SIGQUIT")
	}
}

func (s *signals) dumpState(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	status, err := s.svc.Status(ctx)
	if err != nil {
		return
	}
	for _, r := range rowsOf(status) {
		s.log.Info().Str("service", status.Name).Str("event", "state").Msg(r.sentence())
	}
	s.log.Debug().Str("event", "state.all").Interface("status", status).Msg("state as JSON")
}
