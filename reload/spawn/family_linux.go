package spawn

import (
	"maps"
	"os"
	"slices"
	"sync"
)

// family finds the processes of a generation: see the package comment. Its methods may
// be called by any goroutine.
type family struct {
	leader    int // the main process; unreaped, so that its number is nobody else's
	holder    int
	mark      string
	groupOnly bool
	cgroup    *cgroup // nil where there is none

	mu       sync.Mutex
	seen     map[int]uint64 // processes that were found once: pid and start
	sessions map[int]bool   // that they were in, less the holder's
}

func newFamily(leader int, o Options, c *cgroup) *family {
	return &family{leader: leader, holder: os.Getpid(), mark: o.mark, groupOnly: o.GroupOnly, cgroup: c,
		seen: map[int]uint64{}, sessions: map[int]bool{}}
}

// find looks for those that run, ascending by pid, and remembers them. Only two looks
// in a row that find nobody tell that nobody is left: one whose parent ends during the
// first may have been passed over.
func (f *family) find() ([]stat, error) {
	t, err := readTable()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []stat
	for _, pid := range slices.Sorted(maps.Keys(f.membersOf(t))) {
		if !t[pid].ended() {
			found = append(found, t[pid])
		}
	}
	return found, nil
}

// membersOf are all of t that belong to the generation, ended ones too.
func (f *family) membersOf(t table) map[int]bool {
	in := map[int]bool{}
	for pid, s := range t {
		if pid == f.leader || s.group == f.leader {
			in[pid] = true
		}
	}
	if f.groupOnly {
		return in
	}
	for _, pid := range f.cgroup.pids() {
		if _, ok := t[pid]; ok {
			in[pid] = true
		}
	}
	for pid, s := range t {
		if start, ok := f.seen[pid]; ok && start == s.start {
			in[pid] = true
		}
	}
	f.grow(in, t)
	f.remember(in, t)
	return in
}

// grow adds descendants, and the orphans among the holder's children.
func (f *family) grow(in map[int]bool, t table) {
	asked := map[int]bool{}
	for grown := true; grown; {
		grown = false
		for pid, s := range t {
			switch {
			case in[pid]:
				continue
			case in[s.parent]:
			case s.ended() || !f.isOrphan(s, t):
				continue
			case f.sessions[s.session]:
			case asked[pid] || !hasMark(pid, f.mark):
				asked[pid] = true
				continue
			}
			in[pid], grown = true, true
			f.addSession(s, t)
		}
	}
}

// isOrphan: a child of the holder's, or one whose parent has ended while the table was
// read, and that is on its way to be one.
func (f *family) isOrphan(s stat, t table) bool {
	parent, there := t[s.parent]
	return s.parent == f.holder || !there || parent.ended()
}

// addSession: whoever is in a session that a member has made is a descendant of that
// member's. Number 0 is a session of another pid namespace.
func (f *family) addSession(s stat, t table) {
	if s.session != 0 && s.session != t[f.holder].session {
		f.sessions[s.session] = true
	}
}

// remember those that run, for when their parents have ended and their environment is
// overwritten (setproctitle).
func (f *family) remember(in map[int]bool, t table) {
	maps.DeleteFunc(f.seen, func(pid int, start uint64) bool { return t[pid].start != start })
	for pid := range in {
		if s := t[pid]; !s.ended() {
			f.seen[pid] = s.start
			f.addSession(s, t)
		}
	}
}
