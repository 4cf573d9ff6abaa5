package handoff

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// group is an SO_REUSEPORT group: each listener has a socket of its own, and a
// classic BPF program chooses among them.
type group struct {
	ep       *Endpoint
	kernel   kernel
	array    array
	ours     *Listener   // the inherited one, once it is adopted
	refusing []*Listener // bound but shut down, see refuse
	left     []*Listener // have left by themselves and are neither mended nor closed yet
	departed int         // how many have left by themselves ever
	changed  bool        // we let somebody join or leave since the last look
}

// attempts bounds how often opening starts over because a loose member left in
// the middle of it.
const attempts = 8

func newSteering(ep *Endpoint) steering {
	if ep.options.Shared {
		return &shared{ep: ep}
	}
	return &group{ep: ep, kernel: linux{}}
}

func (g *group) kind() string { return "cbpf" }

func (g *group) members() []*Listener {
	return slices.Concat(g.array, g.refusing, g.left)
}

// open joins a listener of our own.
func (g *group) open() (*Listener, error) {
	if g.ep.inherited != nil && g.ours == nil {
		return g.adopt()
	}
	return g.place(func() (*Listener, error) { return g.make(false) }, g.close)
}

// join lets a daemon's own socket be a listener. It can't be opened again, but it
// can leave and join once more.
func (g *group) join(fd int) (*Listener, error) {
	inode, err := inodeOf(fd)
	if err != nil {
		return nil, err
	}
	l := &Listener{ep: g.ep, fd: fd, inode: inode, own: true, deferred: deferredBy(fd)}
	return g.place(func() (*Listener, error) { return l, g.enter(l) }, g.step)
}

// step takes a member that has just joined out again, not for good.
func (g *group) step(l *Listener) error {
	if err := g.look(); err != nil {
		return err
	}
	if l.member {
		if err := g.leave(l); err != nil {
			return err
		}
	}
	g.left = drop(g.left, l)
	l.loose, l.unsure = false, false
	if !l.hidden {
		return nil
	}
	l.hidden = false
	return g.kernel.show(l.fd, g.ep.Key().Device)
}

// place joins a listener, with as many pads as the loose members make necessary. One
// of those leaving in between would make the new one's place uncertain: then it is
// given up, and it begins again.
func (g *group) place(join func() (*Listener, error), giveUp func(*Listener) error) (*Listener, error) {
	if len(g.array) == 0 && len(g.refusing) > 0 {
		return nil, fmt.Errorf("the endpoint refuses connections; resume it first")
	}
	for range attempts {
		if err := g.look(); err != nil {
			return nil, err
		}
		before := g.departed
		l, err := join()
		if err != nil {
			return nil, err
		}
		err = g.placeNew(l)
		if err == nil && g.departed == before {
			return l, nil
		}
		l.loose = true
		g.array.unsettle()
		if err = errors.Join(err, giveUp(l)); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("generations keep leaving the address")
}

func (g *group) placeNew(l *Listener) error {
	if err := g.replacePad(l); err != nil {
		return err
	}
	if err := g.pad(); err != nil {
		return err
	}
	return g.look()
}

// make opens one socket.
func (g *group) make(pad bool) (*Listener, error) {
	fd, err := g.kernel.bind(g.ep)
	if err != nil {
		return nil, err
	}
	l := &Listener{ep: g.ep, fd: fd, pad: pad}
	if l.inode, err = inodeOf(fd); err == nil {
		err = g.enter(l)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	if pad {
		g.hide(l)
	}
	return l, nil
}

// enter lets a bound socket listen. The first of a group gets its program right after
// that: alone it gets everything whatever a program says, and an attach between bind and
// listen would make listen fail where an overlapping address of the same port is
// held too (inet_bind_conflict in net/ipv4/inet_connection_sock.c).
func (g *group) enter(l *Listener) error {
	err := g.listen(l)
	if err == nil && len(g.array) == 1 {
		err = g.kernel.attach(l.fd, indices{live: []uint32{0}})
	}
	if err != nil {
		g.array, l.member = g.array.removed(l), false
	}
	return err
}

func (g *group) listen(l *Listener) error {
	if err := g.kernel.listen(l.fd, backlog(g.ep.spec)); err != nil {
		return inUse(g.ep, err)
	}
	if g.array.hidden() {
		if err := g.part(); err != nil {
			return err
		}
	}
	g.array = append(g.array, l)
	l.member, g.changed = true, true
	return nil
}

// part leaves a group of hidden ones alone: members must be of one device, so whoever
// listens now makes a group of its own. The loose ones are left to their daemons.
func (g *group) part() error {
	for _, l := range g.array {
		l.member = false
		if !l.pad {
			continue
		}
		if err := l.closeFD(); err != nil {
			return err
		}
	}
	g.array = nil
	return nil
}

func (g *group) steer(p Plan) error { return g.attachPlan(p) }

func (g *group) attachPlan(p Plan) error {
	in := indices{live: g.places(p.Live), candidate: g.places(p.Candidate), probe: g.places(p.Probe), share: p.Share}
	in.v4, in.v6 = g.ep.Key().Families()
	if len(in.live) == 0 {
		return nil
	}
	// Through one that was shut down it would take no effect and spoil the next listen.
	return g.kernel.attach(g.array[in.live[0]].fd, in)
}

func (g *group) places(of []*Listener) []uint32 {
	var places []uint32
	for _, l := range of {
		if i := g.array.index(l); i >= 0 {
			places = append(places, uint32(i))
		}
	}
	return places
}

// loosen looks first: a daemon may have shut its listener down unasked, and the place
// that it left must be known before a pad takes one, or live would be believed to be
// where that pad is, which drops every client.
func (g *group) loosen(l *Listener) error {
	if err := g.look(); err != nil {
		return err
	}
	l.loose = true
	if err := g.pad(); err != nil {
		return err
	}
	g.hide(l)
	return g.look() // so that one leave from here on is known for what it is
}

// hide keeps new connections from ever finding this member itself; the program
// still counts its place. While a member leaves, the kernel takes it out of the
// group before it takes it out of the hash of listeners (inet_unhash in
// net/ipv4/inet_hashtables.c), and a SYN that meets it in between gets it, whatever
// the program says: about one of 20,000 leaves under load reset a client. A socket
// bound to a device that there is none of matches no packet. Kernels before 5.7
// want CAP_NET_RAW for it; there that one stays.
func (g *group) hide(l *Listener) {
	l.hidden = l.hidden || !l.inherited && g.kernel.hide(l.fd) == nil
}

// refresh tells of members that have left by themselves until they listen again or
// are closed: who opens or closes another looks too, and does not mend them.
func (g *group) refresh() ([]*Listener, error) {
	err := g.look()
	return slices.Clone(g.left), err
}

// look finds the members that have left by themselves since the last look. If they
// are several, or we let somebody join or leave meanwhile, nobody knows the order, and
// so which pad or loose member took whose place.
func (g *group) look() error {
	before := len(g.left)
	for {
		found, err := g.lookOnce()
		if err != nil {
			return err
		}
		if !found { // one that left while we looked at others has been found as well
			break
		}
	}
	left := len(g.left) - before
	g.departed += left
	if left > 1 || left == 1 && g.changed {
		g.array.unsettle()
	}
	g.changed = false
	return nil
}

// lookOnce finds all before a program is attached again, for that must not be through
// one of them: it would take no effect, and spoil that one's next listen.
func (g *group) lookOnce() (found bool, err error) {
	var gone []*Listener
	for _, l := range g.array {
		if l.pad {
			continue
		}
		listening, err := g.kernel.listening(l.fd)
		if err != nil {
			return false, err
		}
		if !listening {
			gone = append(gone, l)
		}
	}
	moved := false
	for _, l := range gone {
		g.left = append(g.left, l)
		moved = g.strike(l) || moved
	}
	if !moved {
		return len(gone) > 0, nil
	}
	return true, g.attachPlan(g.ep.plan)
}

// forget takes a member that is out of the kernel's array out of the mirror
// too, and names the new places of those that moved.
func (g *group) forget(l *Listener) error {
	if !g.strike(l) {
		return nil
	}
	return g.attachPlan(g.ep.plan)
}

// strike takes it out of the mirror, and tells whether one that the plan names has moved.
func (g *group) strike(l *Listener) (moved bool) {
	last := g.array[len(g.array)-1]
	g.array = g.array.removed(l)
	l.member = false
	g.array.inherit(last, l)
	return last != l && g.ep.plan.names(last)
}

// relisten joins again at the end. A program still in force is the group's;
// where there was nobody else it died with the last member and is attached
// anew, after listen: through a listener that is shut down it would take no
// effect and spoil the next listen.
func (g *group) relisten(l *Listener) error {
	if l.member {
		return nil
	}
	if l.inherited {
		return g.rejoin(l)
	}
	l.loose, l.unsure = false, false
	g.left = drop(g.left, l)
	if err := g.listen(l); err != nil {
		return err
	}
	if err := g.attachPlan(g.ep.plan); err != nil {
		return err
	}
	return g.pad()
}

// close looks first who has left by himself, since each decision is made on the
// mirror.
func (g *group) close(l *Listener) error {
	if l.inherited {
		return g.park(l)
	}
	if err := g.look(); err != nil {
		return err
	}
	if l.member {
		if err := g.leave(l); err != nil {
			return err
		}
	}
	g.left, g.refusing = drop(g.left, l), drop(g.refusing, l)
	g.kernel.shutdown(l.fd) // one that a stray process still has open, too
	g.ep.plan = g.ep.plan.without(l)
	if err := l.closeFD(); err != nil {
		return err
	}
	return g.collectPads()
}

// leave takes l out. Loose first, so that pads stand where they are needed.
func (g *group) leave(l *Listener) error {
	if !g.array.mayLeave(l, g.ep.plan.names) {
		l.loose = true
		if err := g.pad(); err != nil {
			return err
		}
	}
	return g.takeOut(l)
}
