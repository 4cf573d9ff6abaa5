package handoff

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// model is the kernel's side of a group as net/core/sock_reuseport.c has it. Before
// every call, any listener whose daemon was told to stop may leave; after every
// change, the program in force must mean whom it meant when it was attached. Where one
// left unasked, that holds again when somebody has looked.
type model struct {
	t       *rapid.T
	chance  *rand.Rand
	array   []int
	deaf    map[int]bool // get no packets
	lone    bool         // one that was listening before it had SO_REUSEPORT, in no group yet
	mayGo   map[int]bool // told to stop
	program indices
	meant   map[uint32]int // by index, when it was attached
	// probing: the probe's indices count too; not during a change, when nobody probes.
	probing bool
	// unheard: one has left unasked, and nobody has looked yet.
	unheard bool
	// inherited is the descriptor of a socket that was there before; -1 for none.
	inherited int
}

func (m *model) bind(*Endpoint) (int, error) {
	m.leaves()
	// A descriptor of its own, so that what closes it closes nothing else.
	return unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

func (m *model) listen(fd, _ int) error {
	m.leaves()
	if !slices.Contains(m.array, fd) {
		m.array = append(m.array, fd)
	}
	if len(m.array) > 1 {
		m.lone = false
	}
	m.check()
	return nil
}

func (m *model) listening(fd int) (bool, error) {
	m.leaves()
	return slices.Contains(m.array, fd), nil
}

func (m *model) attach(_ int, in indices) error {
	m.leaves()
	if m.lone {
		return unix.EINVAL
	}
	m.program, m.meant, m.unheard = in, map[uint32]int{}, false
	for _, index := range slices.Concat(in.live, in.candidate, in.probe) {
		if int(index) >= len(m.array) {
			m.t.Fatalf("a program names place %d of %d", index, len(m.array))
		}
		m.meant[index] = m.array[index]
	}
	return nil
}

func (m *model) hide(fd int) error {
	m.leaves()
	if fd == m.inherited {
		m.t.Fatal("the inherited socket is hidden")
	}
	return nil
}

func (m *model) show(int, int) error {
	m.leaves()
	return nil
}

func (m *model) admit(int) error { return nil }

func (m *model) deafen(fd int) error {
	m.deaf[fd] = true
	return nil
}

// restore is the end: nobody but the inherited one may be left.
func (m *model) restore(in *Inherited) error {
	if !slices.Equal(m.array, []int{in.fd}) {
		m.t.Fatalf("in the end the array is %v, and the inherited one %d", m.array, in.fd)
	}
	return nil
}

func (m *model) shutdown(fd int) {
	m.leaves()
	if fd == m.inherited {
		m.t.Fatal("the inherited socket is shut down")
	}
	m.leave(fd)
	delete(m.deaf, fd)
}

// inherit is what somebody else has opened.
func (m *model) inherit(addr netip.AddrPort) *Inherited {
	fd, err := m.bind(nil)
	if err != nil {
		m.t.Fatal(err)
	}
	m.inherited, m.array, m.lone = fd, []int{fd}, true
	return &Inherited{fd: fd, addr: addr}
}

// leaves lets some of those go that may.
func (m *model) leaves() {
	for _, fd := range slices.Clone(m.array) {
		if m.mayGo[fd] && m.chance.IntN(12) == 0 {
			m.leave(fd)
		}
	}
}

// leaveUnasked is what a daemon may do to a listener before it is told to stop. Were
// another to leave before the next look, nobody could tell who has moved.
func (m *model) leaveUnasked(ep *Endpoint, l *Listener) error {
	if len(m.mayGo) > 0 {
		return nil
	}
	if _, err := ep.Refresh(); err != nil {
		return err
	}
	m.unheard = true
	m.leave(l.fd)
	return nil
}

func (m *model) leave(fd int) {
	delete(m.mayGo, fd)
	i := slices.Index(m.array, fd)
	if i < 0 {
		return
	}
	last := len(m.array) - 1
	m.array[i] = m.array[last]
	m.array = m.array[:last]
	m.check()
}

// check is what a client that connects now would find. An index out of range is a
// hash over all, which is right if only one is left.
func (m *model) check() {
	m.t.Helper()
	if m.unheard {
		return
	}
	if m.meant == nil && m.inherited >= 0 { // a hash over all, where the others must be deaf
		for _, fd := range m.array {
			if fd != m.inherited && !m.deaf[fd] {
				m.t.Fatalf("without a program, %d gets packets: the array is %v", fd, m.array)
			}
		}
	}
	indices := slices.Concat(m.program.live, m.program.candidate)
	if m.probing {
		indices = append(indices, m.program.probe...)
	}
	for _, index := range indices {
		switch {
		case int(index) < len(m.array) && m.array[index] == m.meant[index]:
		case int(index) >= len(m.array) && len(m.array) == 1 && m.array[0] == m.meant[index]:
		case m.inherited >= 0 && m.deafBut(m.inherited): // it is being given back
		case len(m.array) == 0:
		default:
			m.t.Fatalf("the program names place %d, where %d stood; now the array is %v", index, m.meant[index], m.array)
		}
	}
}

// deafBut: whoever gets a packet of another's drops it, and it comes again.
func (m *model) deafBut(fd int) bool {
	return !slices.ContainsFunc(m.array, func(other int) bool { return other != fd && !m.deaf[other] })
}

// mend what a daemon has shut down that was told to stop, if it is inherited.
func (m *model) mend(ep *Endpoint) error {
	left, err := ep.Refresh()
	for _, l := range left {
		if l.inherited {
			err = errors.Join(err, ep.Relisten(l))
			m.mayGo[l.fd] = l.loose
		}
	}
	m.aim(ep.Plan())
	return err
}

// aim checks that the program means the plan's listeners, and where they stand.
func (m *model) aim(p Plan) {
	m.t.Helper()
	for _, role := range []struct {
		name    string
		indices []uint32
		want    []*Listener
	}{{"live", m.program.live, p.Live}, {"probe", m.program.probe, p.Probe}} {
		for i, l := range role.want {
			if got := m.meant[role.indices[i]]; got != l.fd {
				m.t.Fatalf("%s is %d, but the program means %d", role.name, l.fd, got)
			}
		}
	}
	m.probing, m.unheard = true, false
	m.check()
	m.probing = false
}

// Whatever the order in which generations start, are probed, promoted, refused, told
// to stop, leave by themselves and are closed: at no moment between two system calls
// does a client reach anybody but live, and a probe always reaches the candidate.
func TestGroupAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{t: t, mayGo: map[int]bool{}, deaf: map[int]bool{}, inherited: -1, chance: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))}
		ep := &Endpoint{addr: netip.MustParseAddrPort("127.0.0.1:1"), spec: Spec{Network: TCP}}
		if rapid.Bool().Draw(t, "inherited") {
			ep.inherited = m.inherit(ep.addr)
		}
		ep.steering = &group{ep: ep, kernel: m}
		defer ep.CloseAll()
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		open := func() *Listener {
			give := ep.Open
			switch rapid.IntRange(0, 2).Draw(t, "how") {
			case 1:
				give = ep.Reserve
			case 2:
				if ep.inherited == nil {
					give = func() (*Listener, error) { return ep.Join(descriptor(m.bind(ep))(t)) }
				}
			}
			l, err := give()
			must(err)
			return l
		}
		live := open()
		if ep.inherited != nil && live.fd != m.inherited {
			t.Fatal("the inherited socket is not the first listener")
		}
		var draining []*Listener
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			next := open()
			must(ep.Steer(Plan{Live: []*Listener{live}, Probe: []*Listener{next}}))
			m.aim(ep.Plan())
			if rapid.IntRange(0, 3).Draw(t, "refused") == 0 {
				must(ep.Steer(Plan{Live: []*Listener{live}}))
				must(ep.Loosen(next))
				draining = append(draining, next)
				m.mayGo[next.fd] = true
			} else {
				must(ep.Steer(Plan{Live: []*Listener{next}}))
				if rapid.IntRange(0, 3).Draw(t, "unasked") == 0 {
					must(m.leaveUnasked(ep, live))
				}
				must(ep.Loosen(live))
				m.mayGo[live.fd] = true
				draining = append(draining, live)
				live = next
			}
			m.aim(ep.Plan())
			for keep := rapid.IntRange(0, 4).Draw(t, "draining"); len(draining) > keep; {
				i := rapid.IntRange(0, len(draining)-1).Draw(t, "which")
				delete(m.mayGo, draining[i].fd)
				must(ep.Close(draining[i]))
				draining = slices.Delete(draining, i, i+1)
				m.aim(ep.Plan())
			}
			if rapid.IntRange(0, 7).Draw(t, "mended") == 0 {
				must(m.mend(ep))
			}
		}
		for _, l := range draining {
			delete(m.mayGo, l.fd) // its daemon is gone
		}
		must(ep.CloseAll())
	})
}

func descriptor(fd int, err error) func(*rapid.T) int {
	return func(t *rapid.T) int {
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
}
