package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"github.com/gapless-dev/gapless/handoff/bind"
	"github.com/gapless-dev/gapless/reload/spawn"
)

const (
	meansNoBind = "only daemons that take their listener (LISTEN_FDS) can be served; with --delivery auto one that binds by itself gets the address for itself, and generations of it can't overlap"
	otherUID    = 65534 // nobody
)

// bindChecks are of what a daemon needs that binds by itself.
func bindChecks(ctx context.Context) []check {
	filter := filterCheck(within(ctx, bind.Probe))
	if filter.State != stateOK || runtime.GOOS != "linux" {
		return []check{filter}
	}
	var own, other bindTried
	var wg sync.WaitGroup
	wg.Go(func() { own = tryBind(ctx, nil) })
	if os.Geteuid() == 0 {
		wg.Go(func() { other = tryBind(ctx, &spawn.Credential{UID: otherUID, GID: otherUID}) })
	}
	wg.Wait()
	checks := append([]check{filter}, own.checks()...)
	return append(checks, otherUserCheck(other, own), noNewPrivsCheck(own), profileCheck(), yamaCheck(), uringCheck())
}

func filterCheck(err error) check {
	do := "give the daemon its listener by LISTEN_FDS"
	switch {
	case runtime.GOOS != "linux":
		do = doLinux
	case errors.Is(err, syscall.EBUSY):
		do = "start it outside of what watches it: another gapless, podman with bypass4netns, LXD's interception of system calls"
	case errors.Is(err, syscall.EPERM):
		do = "docker run --security-opt seccomp=PROFILE with one that allows seccomp(2) (or unconfined)"
	case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EINVAL):
		do = "Linux 5.9 with CONFIG_SECCOMP_FILTER; not a sandbox that stands in for one (gVisor)"
	}
	c := of("bind", "a seccomp filter on a thread of its own, and an answer to its bind", "a daemon's bind can be seen and answered", err,
		check{State: stateMissing, Means: meansNoBind, Do: do})
	c.Needed = true
	return c
}

// bindTried is how a throw-away daemon fared.
type bindTried struct {
	spawn.BindTrial
	failed error // it could not be tried
}

// tryBind runs this very binary as the daemon.
func tryBind(ctx context.Context, as *spawn.Credential) bindTried {
	t, err := runTrial(ctx, as)
	if err == nil && t.NoFilter != "" {
		err = errors.New(t.NoFilter)
	}
	return bindTried{t, err}
}

func runTrial(ctx context.Context, as *spawn.Credential) (spawn.BindTrial, error) {
	self, err := myself()
	if err != nil {
		return spawn.BindTrial{}, fmt.Errorf("can't find the binary that runs: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return spawn.BindTrial{}, fmt.Errorf("can't start a child: %w", err)
	}
	defer null.Close()
	o := spawn.Options{
		Order: spawn.Order{Argv: []string{"gapless", trialVerb}, Env: append(os.Environ(), "GOMAXPROCS=1"), Path: self, Dir: "/", Credential: as},
		Shim:  []string{self, shimVerb}, Stdin: null, Stdout: null, Stderr: null, Cgroups: spawn.FindCgroups(), Name: "doctor",
	}
	if file, err := os.Open(self); err == nil && withoutProc() == "" { // another user may not get to its path
		defer file.Close()
		o.Program = file
	}
	return spawn.TryBind(ctx, o)
}

const (
	triedAddress = "reading the address from the memory of a child that binds (process_vm_readv, /proc/PID/mem)"
	triedKeep    = "a duplicate of the child's socket (pidfd_getfd), bound in its stead"
	triedReplace = "a socket in the place of the child's (SECCOMP_IOCTL_NOTIF_ADDFD)"
	doPtrace     = "docker run --cap-add SYS_PTRACE; elsewhere CAP_SYS_PTRACE, or a profile that allows it"
)

// checks: where the socket can be had, replacing is for some cases only; where not, all
// depends on it.
func (t bindTried) checks() []check {
	if t.failed != nil {
		return []check{{Name: "bind: a child", State: stateMissing, Needed: true, Tried: "a child that binds two ports of 127.0.0.1", Found: t.failed.Error(), Means: meansNoBind, Do: doChild(t.failed)}}
	}
	address := of("bind: address", triedAddress, "what a daemon binds can be read", t.Memory, check{State: stateMissing, Means: meansNoBind, Do: doPtrace})
	address.Needed = true
	keep := of("bind: keep", triedKeep, "a daemon keeps its own socket, with all its options", t.Duplicate, check{State: stateLimited, Do: doPtrace,
		Means: "a socket of gapless's takes the place of the daemon's (replace): its address must be given with -l, and what the daemon has set on its own before bind is lost, as is an epoll registration"})
	replace := of("bind: replace", triedReplace, "a listener that clients wait in can be given to a daemon that binds", t.Replace, check{State: stateLimited, Do: doPtrace,
		Means: "clients that waited through a crash or a stop are not handed to the next generation, but relayed to it"})
	if t.Duplicate != nil {
		replace.Needed = true
		if t.Replace != nil {
			replace.State, replace.Means = stateMissing, meansNoBind
		}
	}
	return []check{address, keep, replace}
}

func doChild(err error) string {
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return "let it have more processes: ulimit -u, TasksMax=, docker run --pids-limit"
	case errors.Is(err, syscall.EMFILE):
		return "let it have more open files: ulimit -n, LimitNOFILE=, docker run --ulimit nofile="
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "try again with more time: gapless doctor --timeout 20s"
	}
	return "see whether this user may run " + os.Args[0]
}

// otherUserCheck is about --user.
func otherUserCheck(t, own bindTried) check {
	c := check{Name: "another user", State: stateOK, Tried: fmt.Sprintf("the same with a child of uid %d", otherUID), Found: "a daemon with --user is served like any other"}
	switch {
	case os.Geteuid() != 0:
		c.State, c.Found = stateLimited, "not tried: --user takes root"
		c.Means, c.Do = "daemons run as the user of gapless", "run gapless as root if a daemon is to have a user of its own"
	case t.failed != nil:
		c.State, c.Found = stateLimited, t.failed.Error()
		c.Means, c.Do = "--user does not work here", "docker run --cap-add SETUID --cap-add SETGID; the binary must be executable for that user"
	case t.Memory != nil || t.Replace != nil && t.Duplicate != nil:
		c.State, c.Found = stateLimited, errors.Join(t.Memory, t.Replace).Error()
		c.Means, c.Do = "a daemon with --user that binds by itself is not served; one that takes LISTEN_FDS is", doPtrace
	case t.Duplicate != nil && own.Duplicate == nil:
		c.State, c.Found = stateLimited, t.Duplicate.Error()
		c.Means, c.Do = "with --user a socket of gapless's takes the place of the daemon's, see bind: keep", doPtrace
	}
	return c
}

func noNewPrivsCheck(t bindTried) check {
	c := check{Name: "no_new_privs", State: stateOK, Tried: "the filter without it, which takes CAP_SYS_ADMIN", Found: "not needed: set-user-ID programs work in a daemon"}
	switch {
	case bind.NoNewPrivs():
		c.Found = "set already on gapless itself, by whoever started it"
		c.Means = "set-user-ID programs (sudo, ping) have no effect in it, nor in its daemons"
	case t.failed == nil && t.NoNewPrivs:
		c.State, c.Found = stateLimited, "it must be set on daemons, since gapless has no CAP_SYS_ADMIN"
		c.Means = "set-user-ID programs (sudo, ping) have no effect in a daemon; nothing else changes"
		c.Do = "if a daemon needs them: run as root (docker run --cap-add SYS_ADMIN), or --delivery listen-fds"
	}
	return c
}

func profileCheck() check {
	c := check{Name: "seccomp profile", State: stateOK, Tried: "Seccomp_filters in /proc/self/status", Found: "none"}
	if n := bind.Filtered(); n != 0 {
		c.Found = fmt.Sprintf("%d filters already", n)
		if n == 1 {
			c.Found = "1 filter already"
		} else if n < 0 {
			c.Found = "there is one already"
		}
		c.Means = "whoever started this (a container's runtime, systemd) forbids some system calls; the checks above went through it"
	}
	return c
}

func yamaCheck() check {
	scope := bind.Yama()
	c := check{Name: "Yama", State: stateOK, Tried: "kernel.yama.ptrace_scope", Found: fmt.Sprintf("%d", scope)}
	switch {
	case scope == 1:
		c.Means = "gapless may look into its own daemons, and into no other process of its user"
	case scope > 1:
		c.State = stateLimited
		c.Means = "looking into a daemon takes CAP_SYS_PTRACE (2), or is forbidden to all (3); what that costs here, bind: keep tells"
		c.Do = "sysctl -w kernel.yama.ptrace_scope=1 (3 can't be taken back before a reboot)"
	}
	return c
}

func uringCheck() check {
	c := check{Name: "io_uring", State: stateOK, Tried: "a ring of its own, asked for IORING_OP_BIND", Found: "no daemon can bind by it"}
	if bind.BindsUnseen() {
		c.Found = "a bind by it would not be seen"
		c.Means = "a daemon that binds by io_uring, as hardly any does, is not served; give it its listener by LISTEN_FDS"
	}
	return c
}
