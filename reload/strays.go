package reload

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gapless-dev/gapless/handoff/conns"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// namedMost is how many processes one line of the log names.
const namedMost = 8

func (s *Service) wereKilled(g *generation, err error) {
	s.nameKilled(g)
	if err != nil {
		s.report("generation.kill-failed", g.number, err)
	}
}

// nameKilled tells which processes, beside the main one, had to be killed.
func (s *Service) nameKilled(g *generation) {
	if g.proc == nil {
		return
	}
	killed := g.proc.Killed()
	if len(killed) == 0 {
		return
	}
	pids, names := make([]int, len(killed)), make([]string, len(killed))
	for i, m := range killed {
		pids[i], names[i] = m.PID, m.Name
	}
	s.emit(event{kind: "processes.killed", level: levelWarn, generation: g.number, fields: map[string]any{"pids": pids, "names": names},
		text: fmt.Sprintf("%s: generation %d %s", s.cfg.Name, g.number, fate(killed, g.exited))})
}

// fate is "left pid 4242 (sleep) behind; it is killed", if the main process has ended.
func fate(killed []spawn.Member, exited bool) string {
	var all []string
	for _, m := range killed[:min(len(killed), namedMost)] {
		all = append(all, fmt.Sprintf("pid %d (%s)", m.PID, m.Name))
	}
	if more := len(killed) - namedMost; more > 0 {
		all = append(all, fmt.Sprintf("%d more", more))
	}
	who, is := strings.Join(all, ", "), "it is"
	if len(killed) > 1 {
		is = "they are"
	}
	if exited {
		return fmt.Sprintf("left %s behind; %s killed", who, is)
	}
	return fmt.Sprintf("has %s too; %s killed with it", who, is)
}

// rivals are what is left of live generations that crashed: they may accept from the
// listeners that a candidate has got from them.
type rivals struct {
	of     []*generation
	procs  []process
	inodes []uint64
}

func (s *Service) rivals(g *generation) rivals {
	var r rivals
	for _, other := range s.runs {
		if other != g && other.exited && !other.gone && s.record(other).Signalled.IsZero() {
			r.of, r.procs = append(r.of, other), append(r.procs, other.proc)
		}
	}
	for _, l := range g.listeners.all() {
		r.inodes = append(r.inodes, l.Inode())
	}
	return r
}

// evict kills those that have kept a listener of the candidate's open in spite of the
// stop signal, and tells whether there were any: who has accepted a probe can't be told
// then. One whose descriptors can't be read is left to its time. It is for goroutines
// beside the owner.
func (s *Service) evict(r rivals) bool {
	found := false
	for i, proc := range r.procs {
		err := proc.KillIf(func(pid int) bool {
			open, err := conns.Sockets(pid)
			holds := err == nil && slices.ContainsFunc(r.inodes, func(inode uint64) bool { return open[inode] })
			found = found || holds
			return holds
		})
		s.post(func() { s.wereKilled(r.of[i], err) })
	}
	return found
}
