package conns

import "time"

// Question says whose connections [Diag.Count] counts, and what it finds out about them.
type Question struct {
	// Ports and Families are those of [Query].
	Ports    []uint16
	Families []int
	// PIDs are the processes whose connections they are: one that has it open is enough. A process that is gone has none.
	PIDs []int
	// Cgroup, if not 0, is asked for in the place of PIDs, see [Query.Cgroup]; then no process's descriptors are read, and
	// [Count.Waiting] is the cgroup's own. It is right for a listener that was made (socket(2)) in that cgroup, and counts
	// nothing at one that was handed to who is in it.
	Cgroup uint64
	// Listeners, if not nil, are the inodes of all listeners that the connections may have come by. Cgroup is asked for only
	// if each of them is of it, and the processes otherwise, as one may have been handed in, or the cgroup been left before
	// socket(2).
	Listeners []uint64
	// IdleAfter is for how long no data must have gone either way over an idle connection. With 0 it is not asked which are
	// idle, and the kernel has half of the work.
	IdleAfter time.Duration
	// Ages, if not nil, learns of all connections that are counted, and forgets all others.
	Ages *Ages
}

// Count is how many connections somebody has; see [Diag.Count].
type Count struct {
	// Open are the connections that are accepted and that the peer or the daemon may still send something over: those in
	// ESTABLISHED, and in CLOSE_WAIT, where the client has said all and the answer is to come.
	Open int
	// Idle are those of Open over which no data has gone for longer than IdleAfter, and of which no bytes wait in a queue, to
	// be read here or acknowledged there. Keep-alive probes are no data. 0 if it was not asked for.
	Idle int
	// IdleFor is for how long the least idle one of Idle has been so; 0 if there is none.
	IdleFor time.Duration
	// Waiting are connections that nobody has accepted yet. They are of a listener, and without a Cgroup it can't be told of
	// which: with several on a port, of any of them.
	Waiting int
	// Oldest is the least that the oldest of Open can be of age; 0 if that can't be told. The kernel keeps no time of birth:
	// it is since when it is known to Ages, or, if IdleAfter was asked for, since when one direction is silent.
	Oldest time.Duration
}

// Busy are those of Open that are not idle.
func (n Count) Busy() int { return n.Open - n.Idle }

// Ages remembers since when connections are known, from one [Diag.Count] to the next. The zero value knows none. It is not
// for concurrent use.
type Ages struct{ since map[uint64]time.Time }

// learn keeps the connections with these cookies alone, and returns since when the oldest of them is known.
func (a *Ages) learn(cookies []uint64, now time.Time) (oldest time.Time) {
	known := make(map[uint64]time.Time, len(cookies))
	oldest = now
	for _, cookie := range cookies {
		since, ok := a.since[cookie]
		if !ok {
			since = now
		}
		known[cookie] = since
		if since.Before(oldest) {
			oldest = since
		}
	}
	a.since = known
	return oldest
}
