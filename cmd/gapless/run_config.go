package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/control"
	"github.com/gapless-dev/gapless/reload/ready"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// config is what the flags ask for, beside the sockets that were inherited. Every error is one of usage.
func (f *runFlags) config(command []string, inherited int) (reload.Config, error) {
	cfg := reload.Config{
		Command: command, Dir: f.workdir, EnvFile: f.envFile, User: f.user, Group: f.group,
		ReadyTimeout: orNone(f.readyTimeout), Probation: time.Duration(f.probation), Drain: reload.Drain(f.drain.value), DrainTimeout: orNone(f.drainTimeout), DrainIdle: orNone(f.drainIdle), StopTimeout: orNone(f.stopTimeout),
		Delivery: reload.Delivery(f.delivery.value), Strategy: reload.Strategy(f.strategy.value), MaxDraining: f.maxDraining, HoldTimeout: orForEver(f.holdTimeout),
		Restart: reload.Restart(f.restart.value), KillMode: reload.KillMode(f.killMode.value), PIDFile: f.pidFile, Stdin: f.stdin, NonBlocking: f.nonBlocking,
	}
	if len(command) == 0 {
		return cfg, errors.New("say what to run: gapless run -l 8080 -- ./server")
	}
	if f.maxDraining < 1 {
		return cfg, fmt.Errorf("bad --max-draining %d: it must be at least 1", f.maxDraining)
	}
	if f.probeRise < 1 {
		return cfg, fmt.Errorf("bad --probe-rise %d: it must be at least 1", f.probeRise)
	}
	var err error
	if cfg.Name, err = f.serviceName(command); err != nil {
		return cfg, err
	}
	if cfg.Specs, err = f.specs(inherited > 0 || f.delivery.value != string(reload.DeliveryListenFDs)); err != nil {
		return cfg, err
	}
	if cfg.Ready, err = f.readiness(); err != nil {
		return cfg, err
	}
	if cfg.Canary, err = f.canary.options(); err != nil {
		return cfg, err
	}
	if f.strategy.value == "replace" && (cfg.Canary != nil || cfg.Probation > 0) {
		return cfg, errors.New("--strategy replace does not go with --canary or --probation: these need two generations at once")
	}
	if cfg.StopSignal, err = spawn.ParseSignal(f.stopSignal); err != nil {
		return cfg, fmt.Errorf("bad --stop-signal: %w", err)
	}
	cfg.Env, err = daemonEnv(os.Environ(), f.setenv)
	return cfg, err
}

// orNone: 0 is the default for a Config, and no time at all for people.
func orNone(d duration) time.Duration { return max(time.Duration(d), 1) }

func orForEver(d duration) time.Duration {
	if d == 0 {
		return -1
	}
	return time.Duration(d)
}

// serviceName: one that is typed must be good, one that is found is made so.
func (f *runFlags) serviceName(command []string) (string, error) {
	if f.name != "" {
		return f.name, control.CheckName(f.name)
	}
	name := strings.TrimLeft(strings.Map(func(r rune) rune {
		if r <= ' ' || r == ':' || r >= 0x7f {
			return '-'
		}
		return r
	}, reload.NameOf(command)), ".-")
	if control.CheckName(name) != nil {
		return "", fmt.Errorf("%q gives no good name for the service; choose one with --name", command[0])
	}
	return name, nil
}

func (f *runFlags) specs(optional bool) ([]handoff.Spec, error) {
	if len(f.listen) == 0 && optional && len(f.fdnames) == 0 {
		return nil, nil
	}
	if len(f.listen) == 0 {
		return nil, errors.New("say on what it listens, with -l 8080 or -l 127.0.0.1:8080; with --delivery listen-fds it can't be found out")
	}
	texts, err := f.named()
	if err != nil {
		return nil, err
	}
	specs, err := handoff.ParseSpecs(texts)
	if err != nil {
		return nil, err
	}
	for _, s := range specs {
		if !s.Network.IsTCP() {
			return nil, fmt.Errorf("bad listen spec %q: this version holds tcp only", s)
		}
	}
	return specs, nil
}

// named puts the names of --fdname before the specs.
func (f *runFlags) named() ([]string, error) {
	texts := append([]string(nil), f.listen...)
	if len(f.fdnames) == 0 {
		return texts, nil
	}
	names := strings.Split(strings.Join(f.fdnames, ":"), ":")
	if len(names) > len(texts) {
		return nil, fmt.Errorf("bad --fdname: it has %d names for %d listeners", len(names), len(texts))
	}
	for i, name := range names {
		if s, err := handoff.ParseSpec(texts[i]); err == nil && s.Name != "" {
			return nil, fmt.Errorf("bad --fdname: %q has a name already", texts[i])
		}
		texts[i] = name + "=" + texts[i]
	}
	return texts, nil
}

func (f *runFlags) readiness() (ready.Options, error) {
	o, err := ready.ParseMode(f.ready)
	if err != nil {
		return o, err
	}
	if f.probe == "" {
		if o.Mode == ready.Probe {
			return o, errors.New("--ready probe needs --probe tcp, http:/path or exec:command")
		}
		return o, nil
	}
	if o.Mode != ready.Auto && o.Mode != ready.Probe {
		return o, fmt.Errorf("--probe does not go with --ready %s", f.ready)
	}
	o.Mode = ready.Probe
	if o.Check, err = ready.ParseCheck(f.probe); err != nil {
		return o, err
	}
	if o.Check.Statuses, err = ready.ParseStatuses(f.probeStatus); err != nil {
		return o, err
	}
	o.Check.Host = f.probeHost
	o.Interval, o.Timeout, o.Rise = time.Duration(f.probeInterval), time.Duration(f.probeTimeout), f.probeRise
	return o, nil
}

// daemonEnv is the holder's environment without its marks, and what -E adds.
func daemonEnv(ours, more []string) ([]string, error) {
	var env []string
	for _, kv := range ours {
		if !isMark(kv) {
			env = append(env, kv)
		}
	}
	for _, kv := range more {
		key, _, hasValue := strings.Cut(kv, "=")
		if key == "" {
			return nil, fmt.Errorf("bad --setenv %q: want NAME=VALUE or NAME", kv)
		}
		if !hasValue {
			value, set := os.LookupEnv(key)
			if !set {
				return nil, fmt.Errorf("bad --setenv %s: it is not in the environment; give it a value", key)
			}
			kv = key + "=" + value
		}
		env = append(env, kv)
	}
	return env, nil
}

// isMark: what was meant for the holder must not reach the daemon, which would take
// another's sockets for its own, or report to another's manager.
func isMark(kv string) bool {
	for _, prefix := range []string{"LISTEN_", "WATCHDOG_", "TABLEFLIP_HAS_PARENT_", "GAPLESS_", "NOTIFY_SOCKET="} {
		if strings.HasPrefix(kv, prefix) {
			return true
		}
	}
	return false
}
