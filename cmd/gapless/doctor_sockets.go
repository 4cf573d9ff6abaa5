package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/gapless-dev/gapless/handoff"
)

const (
	meansOne = "the generations of a service share one listener: nobody can reach just the new one to check it, there is no canary, and the old one accepts until it is told to stop"
	doLinux  = "run it on Linux; here it serves for development"
)

// socketChecks are of what package handoff needs of the kernel.
func socketChecks(ctx context.Context) []check {
	checks := []check{steeringCheck(ctx)}
	if checks[0].State == stateMissing {
		checks = append(checks, of("sharing", "two listeners that are one socket on 127.0.0.1", "generations can share a listener, as a way out", handoff.TrySharing(ctx),
			check{State: stateMissing, Means: "there is no listening on this machine at all", Do: "ip link set lo up"}))
	}
	if runtime.GOOS != "linux" {
		return checks
	}
	return append(checks, steering6Check(ctx), hidingCheck(ctx), followingCheck(ctx), barrierCheck(ctx), queueCheck(), migrationCheck(), cookieCheck(), lowPortCheck())
}

func steeringCheck(ctx context.Context) check {
	missing := check{State: stateMissing, Needed: true, Means: meansOne, Do: "a kernel that has SO_ATTACH_REUSEPORT_CBPF (Linux 4.5), not a sandbox that stands in for one (gVisor); and the loopback interface up (ip link set lo up)"}
	if runtime.GOOS != "linux" {
		missing.Do = doLinux
	}
	c := of("steering", "two SO_REUSEPORT listeners on 127.0.0.1, SO_ATTACH_REUSEPORT_CBPF, 32 connections", "each connection and each probe came to the listener that was named",
		handoff.TrySteering(ctx, handoff.TCP4), missing)
	c.Needed = true
	return c
}

func steering6Check(ctx context.Context) check {
	err := handoff.TrySteering(ctx, handoff.TCP6)
	otherwise := check{State: stateMissing, Means: "at IPv6 addresses " + meansOne}
	if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		otherwise = check{State: stateLimited, Means: "there is no IPv6: what listens on all addresses serves IPv4 alone", Do: "if that is not meant: sysctl -w net.ipv6.conf.all.disable_ipv6=0 (docker run --sysctl …)"}
	}
	return of("steering IPv6", "the same on ::1", "the same on IPv6", err, otherwise)
}

func hidingCheck(ctx context.Context) check {
	return of("hiding", "a listener on 127.0.0.1 that is bound to a device that there is none of (SO_BINDTOIFINDEX)", "an old listener gets nothing more while it closes", handoff.TryHiding(ctx),
		check{State: stateLimited, Means: "while an old listener closes, about one of 20,000 switches under load resets one client", Do: "Linux 5.7, or CAP_NET_RAW (docker run --cap-add NET_RAW)"})
}

func followingCheck(ctx context.Context) check {
	return of("following", "the list of a listener's port by netlink (sock_diag)", "connections can be counted, and followed until they are answered", handoff.TryFollowing(ctx),
		check{State: stateLimited, Means: "connections are not counted, and each reload waits 8 s for what it can't see before the old generation is told to stop", Do: "a kernel with CONFIG_INET_DIAG (modprobe tcp_diag), and a profile that allows netlink sockets"})
}

func barrierCheck(ctx context.Context) check {
	return of("barrier", "membarrier(2)", "the kernel says when nothing is under way by the old program", within(ctx, handoff.TryBarrier),
		check{State: stateLimited, Means: "each switch waits 100 ms instead, much longer than a packet takes", Do: "a profile that allows membarrier(2); nothing needs to be done"})
}

// queueFew is less than what the kernel gives since Linux 5.4.
const queueFew = 4096

func queueCheck() check {
	n, err := handoff.TryBacklog()
	c := of("queue", "the longest queue of a listener on 127.0.0.1 (net.core.somaxconn)", fmt.Sprintf("%d clients can wait in a listener", n), err,
		check{State: stateLimited, Means: "it is not known how many clients can wait"})
	if err != nil || n >= queueFew {
		return c
	}
	c.State = stateLimited
	c.Means = fmt.Sprintf("while no generation accepts (pause, crash, replace), %d clients wait at most; those after them get no answer, and try again after 1, 3 and 7 s", n)
	c.Do = fmt.Sprintf("sysctl -w net.core.somaxconn=%d (docker run --sysctl net.core.somaxconn=%d)", queueFew, queueFew)
	if handoff.Sysctls().Somaxconn < 0 {
		c.Do = "mount /proc, where the kernel's limit stands; or give a length: -l 8080,backlog=" + strconv.Itoa(queueFew)
	}
	return c
}

func migrationCheck() check {
	c := check{Name: "migration", State: stateOK, Tried: "net.ipv4.tcp_migrate_req", Found: "off: whoever waits in a listener that closes is served by gapless"}
	switch handoff.Sysctls().MigrateReq {
	case 1:
		c.State, c.Found = stateLimited, "on: the kernel moves whoever waits in a listener that closes, to any other"
		c.Means = "if a daemon shuts its listener down while a candidate is there, some of those who wait in it get to the candidate, or wait for nobody; other reloads are as safe"
		c.Do = "sysctl -w net.ipv4.tcp_migrate_req=0"
	case -1:
		c.Found = "not to be seen (Linux before 5.14, or no /proc): as if off"
	}
	return c
}

func cookieCheck() check {
	c := check{Name: "SYN cookies", State: stateOK, Tried: "net.ipv4.tcp_syncookies", Found: "on: a listener that is flooded goes on answering"}
	switch handoff.Sysctls().Syncookies {
	case 0:
		c.State, c.Found = stateLimited, "off"
		c.Means, c.Do = "while more handshakes are under way than a listener can keep, new clients get no answer", "sysctl -w net.ipv4.tcp_syncookies=1"
	case 2:
		c.Found = "always: no handshake is under way at a switch, and options of TCP are lost"
	case -1:
		c.Found = "not to be seen"
	}
	return c
}

func lowPortCheck() check {
	port, err := handoff.TryLowPort()
	found := fmt.Sprintf("port %d could be bound, and those like it", port)
	if port == 0 {
		found = "no port takes a privilege"
	}
	return of("low ports", "bind of a port below net.ipv4.ip_unprivileged_port_start on 127.0.0.1", found, err, check{State: stateLimited,
		Means: fmt.Sprintf("ports up to %d can't be held, neither for -l nor for a daemon that binds them", port),
		Do:    `run as root, or "setcap cap_net_bind_service+ep $(command -v gapless)", or sysctl -w net.ipv4.ip_unprivileged_port_start=80`})
}

// kernelCheck is by the number: what it has is tried in the other checks.
func kernelCheck(release string) check {
	c := check{Name: "kernel", State: stateOK, Tried: "uname(2)", Found: fmt.Sprintf("%s %s, %s", systemName(runtime.GOOS), release, runtime.GOARCH)}
	if runtime.GOOS != "linux" {
		c.State, c.Means, c.Do = stateLimited, meansOne, doLinux
		return c
	}
	for _, since := range []struct {
		major, minor int
		means        string
	}{
		{5, 9, "daemons that bind by themselves can't be served (--delivery bind needs Linux 5.9)"},
		{5, 14, "a generation's cgroup can't be killed at once, its processes are killed one by one (Linux 5.14 can)"},
		{5, 19, "a bind may be asked about twice when a signal interrupts it, which costs a little time (not since Linux 5.19)"},
	} {
		if !atLeast(release, since.major, since.minor) {
			c.State, c.Means, c.Do = stateLimited, since.means, "a newer kernel"
			return c
		}
	}
	return c
}

func atLeast(release string, major, minor int) bool {
	first, rest, _ := strings.Cut(release, ".")
	second := rest
	if i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		second = rest[:i]
	}
	a, errA := strconv.Atoi(first)
	b, errB := strconv.Atoi(second)
	return errA == nil && errB == nil && (a > major || a == major && b >= minor)
}
