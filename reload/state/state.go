// Package state is what a service knows of itself, as plain data: all of it that
// would have to survive the holder stands here and nowhere else, so that it can be
// written down and handed to the next holder. What can't be written (descriptors,
// goroutines, timers) package reload keeps beside it, found by generation number
// and socket inode.
//
// The types are read and changed by the goroutine that owns the service only;
// everybody else gets a copy ([Service.Clone]).
package state

import (
	"slices"
	"time"
)

// Version of the layout; a reader refuses one that it does not know.
const Version = 1

// Phase of a generation's life.
type Phase string

// A generation goes starting → (canary) → live → (probation) → draining → gone; one that
// does not become ready ends as failed. A canary is ready and gets a share of the new
// connections. In probation the next one is live, and this one is kept for the way back.
const (
	Starting  Phase = "starting"
	Canary    Phase = "canary"
	Live      Phase = "live"
	Probation Phase = "probation"
	Draining  Phase = "draining"
	Gone      Phase = "gone"
	Failed    Phase = "failed"
)

// Running tells whether there are processes in this phase.
func (p Phase) Running() bool {
	return p == Starting || p == Canary || p == Live || p == Probation || p == Draining
}

// Goal is what the service is to be, as the user said last.
type Goal string

// A service runs until it is stopped (its sockets stay held) or ended.
const (
	Run  Goal = "run"
	Stop Goal = "stop"
	End  Goal = "end"
)

// Service is one daemon and the addresses it answers on.
type Service struct {
	Version   int        `json:"version"`
	Name      string     `json:"service"`
	Goal      Goal       `json:"goal"`
	Endpoints []Endpoint `json:"endpoints"`
	// Generations that run, and the last ones that have ended, oldest first.
	Generations []Generation `json:"generations"`
	// Next is the number of the next generation.
	Next int `json:"next"`
	// Recipe is what the next generation is made from: that of the last one that went
	// live, and before any did, the configured one.
	Recipe Recipe `json:"recipe"`
	// Previous is the generation that was live before live; 0 if there was none.
	Previous int `json:"previous,omitempty"`
	// Back leads to it. Fallen leads to the last live one while that has crashed and
	// is not replaced yet.
	Back   *Way `json:"back,omitempty"`
	Fallen *Way `json:"fallen,omitempty"`
	// Pinned is the origin of the program that live's replacements must run, where
	// live was gone back to; 0 if they look the command up.
	Pinned int `json:"pinned,omitempty"`
	// ProbationEnds is when live has stood its probation; zero if it is on none.
	ProbationEnds time.Time `json:"probation_ends,omitzero"`
	// Share of the new connections that the canary gets, and CanaryEnds is when it gets
	// the rest; zero if somebody decides.
	Share      float64   `json:"canary_share,omitempty"`
	CanaryEnds time.Time `json:"canary_ends,omitzero"`
	// Paused is since when new connections wait, whoever is live; zero if they don't.
	Paused time.Time `json:"paused,omitzero"`
	// Notifies: some generation has said READY=1, so that all are waited for it.
	Notifies bool `json:"notifies"`
	// Crashes in a row, which make the next start wait longer.
	Crashes int `json:"crashes"`
	// Refusing: nobody was live for longer than the hold timeout.
	Refusing bool `json:"refusing"`
	// Relayed clients had to be moved from an old listener to the live generation.
	Relayed int `json:"relayed"`
	// Resumed clients waited through a pause and were relayed at its end.
	Resumed int `json:"resumed,omitempty"`
}

// Endpoint is one address.
type Endpoint struct {
	Name     string `json:"name"`
	Spec     string `json:"spec"`
	Addr     string `json:"address"`
	Steering string `json:"steering"`
	// Found: nobody has named it; the daemon has bound it. Closed: no generation that
	// serves has it any more.
	Found  bool `json:"found,omitempty"`
	Closed bool `json:"closed,omitempty"`
	// Inherited: the socket is a service manager's, and goes back to it.
	Inherited bool `json:"inherited,omitempty"`
	// Reserve is the inode of a listener that waits for the next generation; 0 if
	// there is none. Clients that come while nobody is live wait in it.
	Reserve uint64 `json:"reserve,omitempty"`
}

// Generation is one running copy of the daemon.
type Generation struct {
	Number int   `json:"generation"`
	Phase  Phase `json:"state"`
	PID    int   `json:"pid,omitempty"`
	// PIDStart is the process's start time in clock ticks since boot, field 22 of
	// /proc/PID/stat: with the pid it names the process for good.
	PIDStart uint64    `json:"pid_start,omitempty"`
	Started  time.Time `json:"started"`
	Ready    time.Time `json:"ready,omitzero"`
	// Settled is when nothing was on its way to it any more, so that it finishes what it
	// has; zero if it does not drain.
	Settled time.Time `json:"settled,omitzero"`
	// Signalled is when the stop signal was sent: it is sent once.
	Signalled time.Time `json:"signalled,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Recipe
	Program Program `json:"program"`
	// Pinned: it must be that program, wherever the command leads by now.
	Pinned bool `json:"pinned,omitempty"`
	// Of is the generation that this one was made like, for a way back.
	Of int `json:"of,omitempty"`
	// Binary is the file that runs, links resolved.
	Binary    string     `json:"binary,omitempty"`
	Listeners []Listener `json:"listeners"`
	// Status is what the daemon said of itself (STATUS=).
	Status string `json:"status,omitempty"`
	// Reason it was started for, and Failure why it ended if it should not have.
	Reason  string `json:"reason"`
	Failure string `json:"failure,omitempty"`
	// Exit is how the main process ended: "exit status 3", "killed by SIGKILL".
	Exit string `json:"exit,omitempty"`
	// Delivery is how it got its listeners, as soon as that is known.
	Delivery string `json:"delivery,omitempty"`
	// Notified: it has said READY=1.
	Notified bool `json:"notified,omitempty"`
}

// Recipe is what a generation is made from. Links in it are followed at each start.
type Recipe struct {
	Command []string `json:"command"`
	Dir     string   `json:"dir"`
	// EnvFile is read at each start, and Set (NAME=VALUE), which reloads have added,
	// beats it.
	EnvFile string   `json:"env_file,omitempty"`
	Set     []string `json:"set,omitempty"`
}

// Program is the file that a generation was run from.
type Program struct {
	Path string `json:"path,omitempty"` // absolute; links as they were typed
	Dir  string `json:"dir,omitempty"`  // that it was run in, links resolved
	Hash string `json:"sha256,omitempty"`
	// Script begins with #!, so that it is the interpreter that runs.
	Script bool `json:"script,omitempty"`
	// Origin is the generation that ran it first, by which the holder finds what it
	// has kept of it; 0 if it is not known.
	Origin int `json:"origin,omitempty"`
}

// Way leads back to a generation that was live: it is what that one was made of.
type Way struct {
	Generation int `json:"generation"`
	Recipe
	Program Program `json:"program"`
}

func (w *Way) clone() *Way {
	if w == nil {
		return nil
	}
	c := *w
	c.Recipe = w.Recipe.Clone()
	return &c
}

// Clone is a copy that shares nothing.
func (r Recipe) Clone() Recipe {
	r.Command, r.Set = slices.Clone(r.Command), slices.Clone(r.Set)
	return r
}

// Listener is a socket that a generation has.
type Listener struct {
	Endpoint string `json:"endpoint"`
	Inode    uint64 `json:"inode"`
}

// Clone is a copy that shares nothing.
func (s Service) Clone() Service {
	s.Endpoints = slices.Clone(s.Endpoints)
	s.Generations, s.Recipe = slices.Clone(s.Generations), s.Recipe.Clone()
	s.Back, s.Fallen = s.Back.clone(), s.Fallen.clone()
	for i := range s.Generations {
		g := &s.Generations[i]
		g.Recipe, g.Listeners = g.Recipe.Clone(), slices.Clone(g.Listeners)
	}
	return s
}

// Generation finds one by its number; nil if it is not known any more.
func (s Service) Generation(number int) *Generation {
	for i := range s.Generations {
		if s.Generations[i].Number == number {
			return &s.Generations[i]
		}
	}
	return nil
}

// Live is the generation that new connections go to; nil if there is none.
func (s Service) Live() *Generation {
	for i := range s.Generations {
		if s.Generations[i].Phase == Live {
			return &s.Generations[i]
		}
	}
	return nil
}
