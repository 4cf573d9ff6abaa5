// Package spawn starts one process of a generation and follows it to its end.
//
// # The shim
//
// What must happen in the child, between fork and exec, can't be done by a Go
// parent: LISTEN_PID is the daemon's own pid, known only after the fork, and a
// changed user must not have run code of the holder's. So a hidden sub-command of
// the same binary, the shim, is started in the child's place. It does these things
// and then replaces itself with the daemon by execve(2), keeping its pid:
//
//	holder                                 shim (pid P)
//	socketpair, fork+exec shim    ───────▶ fd 3 = its end, 0 1 2 as the daemon's
//	Send(order, listeners)        ───────▶ Receive
//	                                       listeners to 3, 4, …; filter; user; directory
//	                                       LISTEN_PID=P LISTEN_FDS LISTEN_FDNAMES
//	the notify fd, or why none    ◀─────── if the order wants binds to be seen
//	what will run, opened         ◀─────── if the order wants to know
//	end of file: it runs          ◀─────── execve (the socket is close-on-exec)
//	or the fault, as JSON         ◀─────── and exit
//
// If the holder dies before the order is complete, the shim reads an end of file
// and exits. If the shim dies, the holder reads an end of file and finds the
// process ended before it became the daemon; nothing was lost, since the holder
// sends duplicates. A filter whose notify fd could not be sent ends the shim: the
// daemon's binds would fail (package bind).
//
// # Ownership
//
// The holder keeps the listeners that it sends. A [Process] owns a pidfd, which
// names the process for good (pidfd_open(2)), and keeps the main process unreaped
// until all of its processes are gone: so long neither the pid nor the group's
// number can be given to anybody else, and a signal can't go astray.
//
// # Whose a process is
//
// A generation is more than its process group, for anybody may leave that (setsid(2),
// setpgid(2)). Its processes are
//
//   - the main process, its group, and all their descendants;
//   - orphans. With a [Reaper] the holder is a subreaper, and the parent of whoever lost
//     his own (prctl(2)). Of those a generation's are known by GAPLESS_RUN in their
//     environment, another one at each start; by having been seen as a descendant
//     before; and by the session, if it was seen. One that overwrites its environment
//     (setproctitle) and loses its parent before anybody has looked is a stranger;
//   - whoever is in its cgroup, where it has one: that misses nobody.
//
// A cgroup is made only where the holder is alone in charge: its own directory of the
// unified hierarchy (cgroup v2) must be writable and not the root, and where systemd runs
// it must be marked as delegated (Delegate=yes). No controller is enabled there, so that
// the rule against processes in inner cgroups (cgroups(7)) does not come into play: the
// holder stays where it is, and the generations are below it. SIGKILL goes by cgroup.kill
// (Linux 5.14) as well as to each; a fork can't outrun that.
//
// The end of strangers is waited for too, by the [Reaper], but nobody ends them.
package spawn

import (
	"fmt"
	"os"
	"syscall"

	"github.com/gapless-dev/gapless/handoff"
)

// Order is what the shim is to become.
type Order struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env"`
	// Dir is where Argv[0] is looked up and run, resolved anew at each start.
	Dir string `json:"dir"`
	// Path of the file to run, absolute, if Argv[0] is not to be looked up.
	Path string `json:"path,omitempty"`
	// Report what is run; it comes as the Program of the [Process].
	Report bool `json:"report,omitempty"`
	// Check ends where the daemon would be run.
	Check bool `json:"check,omitempty"`
	// Bind lets the holder see what the daemon binds; see [Process.BindWatch].
	Bind bool `json:"bind,omitempty"`
	// Credential to run as; nil is the holder's own.
	Credential *Credential `json:"credential,omitempty"`
}

// Credential of the daemon.
type Credential struct {
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups"`
}

// Options for [Start].
type Options struct {
	Order
	// Shim is the command that runs [Shim]: the holder's own binary and a hidden
	// sub-command.
	Shim []string
	// Listeners are passed on as fds 3, 4, … in this order, with their names. They
	// stay the caller's.
	Listeners []handoff.File
	// Program, if not nil, is run instead of what is at Path: it may be at no path any
	// more. Scripts can't be run so. It stays the caller's.
	Program *os.File
	// Stdin, Stdout and Stderr of the daemon. They stay the caller's.
	Stdin, Stdout, Stderr *os.File
	// GroupOnly: the generation is its process group, and who leaves that may live on.
	GroupOnly bool
	// Cgroups, if not nil, are where it gets a cgroup of its own. Name is for people who
	// look at that.
	Cgroups *Cgroups
	Name    string
	// RaiseOOM is added to its oom_score_adj until [Process.LowerOOM]; not with
	// GroupOnly, for those who have left the group could not be found again.
	RaiseOOM int

	mark string // an entry of its environment
}

// Program is what was run, as the shim found it right before.
type Program struct {
	Path string // absolute; links as they were typed
	Dir  string // it was run in, links resolved
	// File is open for reading, and the caller's to close; nil if it can't be read.
	File *os.File
}

// ExecError says why a command could not be run.
type ExecError struct {
	Command string
	Reason  string
	// Code is what a shell would end with: 127 not found, 126 not runnable.
	Code int
}

func (e *ExecError) Error() string { return fmt.Sprintf("can't run %s: %s", e.Command, e.Reason) }

// Exit is how a process ended.
type Exit struct {
	Code   int // exit status; 128+n when it was killed by signal n, as shells have it
	Signal syscall.Signal
	Dumped bool
}

// Failed tells whether it ended other than by exit status 0.
func (e Exit) Failed() bool { return e.Code != 0 }

func (e Exit) String() string {
	switch {
	case e.Signal != 0 && e.Dumped:
		return fmt.Sprintf("killed by %s (core dumped)", SignalName(e.Signal))
	case e.Signal != 0:
		return "killed by " + SignalName(e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}
