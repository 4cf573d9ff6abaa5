package reload

import (
	"fmt"

	"github.com/gapless-dev/gapless/reload/spawn"
)

// candidateOOM is added to a candidate's oom_score_adj: of two of a size, the kernel ends
// the one that nobody needs yet. 1000 would be all of the memory (proc(5)).
const candidateOOM = 200

// raiseOOM is 0 for one that starts while nobody is live: there is nobody to spare then.
func (s *Service) raiseOOM() int {
	if s.st.Live() == nil {
		return 0
	}
	return candidateOOM
}

// ease makes of a candidate's processes those of a live generation, and knows them from
// then on. It is for goroutines beside the owner.
func (s *Service) ease(g *generation) {
	if err := g.proc.LowerOOM(); err != nil {
		s.post(func() { s.report("generation.oom-failed", g.number, err) })
	}
}

// checkMemory warns once if two generations are more than the holder's cgroup may have.
// What live has is the best guess at what the next one will need.
func (s *Service) checkMemory() {
	live := s.st.Live()
	if live == nil || s.memoryTold || s.cfg.Memory == nil {
		return
	}
	proc, number := s.runs[live.Number].proc, live.Number
	s.wg.Go(func() {
		m, limited := s.cfg.Memory()
		if !limited {
			return
		}
		pids, err := proc.Members()
		if err != nil {
			return
		}
		if needs := spawn.Resident(pids); needs > m.Room() {
			s.post(func() { s.tellMemory(number, needs, m) })
		}
	})
}

func (s *Service) tellMemory(number int, needs uint64, m spawn.Memory) {
	if s.memoryTold {
		return
	}
	s.memoryTold = true
	s.emit(event{kind: "memory.short", level: levelWarn, generation: number,
		fields: map[string]any{"needs": needs, "room": m.Room(), "limit": m.Limit},
		text: fmt.Sprintf("%s: there may be no memory for two generations: live has %s, and of the limit of %s only %s are left; raise the limit by %s or more (memory.max, MemoryMax=), or the kernel may kill one during a reload",
			s.cfg.Name, mebibytes(needs), mebibytes(m.Limit), mebibytes(m.Room()), mebibytes(needs-m.Room()))})
}

// mebibytes are rounded up.
func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20) }
