package main

import (
	"time"

	"github.com/spf13/pflag"
)

// runFlags are those of run, as typed.
type runFlags struct {
	name     string
	listen   []string
	fdnames  []string
	delivery choice
	strategy choice

	ready         string
	readyTimeout  duration
	probe         string
	probeInterval duration
	probeTimeout  duration
	probeStatus   string
	probeHost     string
	probeRise     int

	canary       canaryFlags
	probation    duration
	drain        choice
	drainTimeout duration
	drainIdle    duration
	stopSignal   string
	stopTimeout  duration
	maxDraining  int
	holdTimeout  duration
	restart      choice
	killMode     choice

	user, group, workdir string
	setenv               []string
	envFile, pidFile     string
	nonBlocking          bool
	stdin, now           bool

	control   string
	logFormat choice
	logLevel  choice
}

func (f *runFlags) define(s *pflag.FlagSet) {
	s.StringVarP(&f.name, "name", "n", "", "`NAME` of the service (default: base name of COMMAND)")
	s.StringArrayVarP(&f.listen, "listen", "l", nil, "hold the address `SPEC`; may be repeated")
	s.StringArrayVar(&f.fdnames, "fdname", nil, "`NAME[:NAME...]` of the listeners, in order")
	choiceFlag(s, &f.delivery, "delivery", "", "how it gets its listeners: by LISTEN_FDS, by its own bind(2), or either", "auto", "listen-fds", "bind")
	choiceFlag(s, &f.strategy, "strategy", "", "replace: only one may run, so clients wait while the next one takes over", "overlap", "replace")
	s.StringVar(&f.ready, "ready", "auto", "`HOW` it shows that it can serve: auto, notify, listen, accept, probe or delay:2s")
	durationFlag(s, &f.readyTimeout, "ready-timeout", 30*time.Second, "then the candidate is killed and the reload fails")
	s.StringVar(&f.probe, "probe", "", "`CHECK` it by tcp, http:/path or exec:command; implies --ready probe")
	durationFlag(s, &f.probeInterval, "probe-interval", 100*time.Millisecond, "between two checks")
	durationFlag(s, &f.probeTimeout, "probe-timeout", 2*time.Second, "of one check")
	s.StringVar(&f.probeStatus, "probe-status", "200-399", "`STATUS` codes of http that are good, as 200,204")
	s.StringVar(&f.probeHost, "probe-host", "", "`HOST` to ask for (default: the address)")
	s.IntVar(&f.probeRise, "probe-rise", 1, "checks that must succeed in a row")
	f.canary.define(s)
	durationFlag(s, &f.probation, "probation", 0, "keep the old one for so long, to go back to it at once if the new one dies")
	choiceFlag(s, &f.drain, "drain", "", "tell it to stop once settled, or with no connections left; auto: as it needs it", "auto", "signal", "connections")
	durationFlag(s, &f.drainTimeout, "drain-timeout", 30*time.Second, "longest wait for connections")
	durationFlag(s, &f.drainIdle, "drain-idle", 5*time.Second, "auto does not wait for connections silent for so long")
	s.StringVar(&f.stopSignal, "stop-signal", "TERM", "`SIGNAL` that tells it to stop")
	durationFlag(s, &f.stopTimeout, "stop-timeout", 8*time.Second, "then SIGKILL to all of the generation")
	choiceFlag(s, &f.killMode, "kill-mode", "", "who ends with it: all its processes, or those of its process group", "all", "group")
	s.IntVar(&f.maxDraining, "max-draining", 4, "more than this, and the oldest is stopped")
	durationFlag(s, &f.holdTimeout, "hold-timeout", time.Minute, "with none live for so long, refuse; 0 holds for ever")
	choiceFlag(s, &f.restart, "restart", "", "when it has ended by itself", "on-failure", "no", "always")
	s.BoolVar(&f.nonBlocking, "non-blocking", false, "its listeners have O_NONBLOCK; nginx needs it")
	s.StringVar(&f.user, "user", "", "`USER` of the daemon")
	s.StringVar(&f.group, "group", "", "`GROUP` of the daemon")
	s.StringVar(&f.workdir, "workdir", "", "`DIR` it runs in, looked up anew at each start")
	s.StringArrayVarP(&f.setenv, "setenv", "E", nil, "`K=V` for its environment, or K to take ours; may be repeated")
	s.StringVar(&f.envFile, "env-file", "", "`FILE` of K=V lines, read at each start")
	s.StringVar(&f.pidFile, "pid-file", "", "`FILE` to keep the live daemon's pid in")
	s.BoolVar(&f.stdin, "stdin", false, "it gets our standard input, not /dev/null")
	s.BoolVar(&f.now, "now", false, "start at once, as run always does")
	s.StringVar(&f.control, "control", "", "`PATH` of the control socket (default: NAME.sock in the runtime directory)")
	choiceFlag(s, &f.logFormat, "log-format", "", "auto: console on a terminal, else json", "auto", "console", "json")
	choiceFlag(s, &f.logLevel, "log-level", "", "what is logged, to stderr", "info", "debug", "warn", "error")
}
