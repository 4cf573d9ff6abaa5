package reload

import (
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/bind"
	"github.com/gapless-dev/gapless/reload/notify"
	"github.com/gapless-dev/gapless/reload/spawn"
)

// habits are what one daemon of the model check does.
type habits struct {
	start    startHabit
	stop     stopHabit
	child    childHabit
	quick    bool // it is ready by itself, else when an event says so
	notifies bool
	shuts    bool // its listeners down, when it is told to stop
	lazy     bool // it accepts when an event says so, else at once
	own      bool // it took no listener that it was offered
	keeps    bool // its connections, that are idle
}

type startHabit int

const (
	startsWell startHabit = iota
	startsSlowly
	notFound
	forkFails
	unprepared // not even its notify socket can be had
	startHabits
)

type stopHabit int

const (
	stopsAtOnce stopHabit = iota
	stopsByExit
	stopsSlowly
	deafToStop
	stopHabits
)

// childHabit: a process of its group that outlives it.
type childHabit int

const (
	noChild childHabit = iota
	meekChild
	deafChild
	childHabits
)

// daemon is a process that exists in the test's bookkeeping alone; its duplicates of
// the listeners are real. The mutex is the world's.
type daemon struct {
	w         *world
	number    int
	pid       int
	habits    habits
	program   *spawn.Program
	file      *file
	sockets   []socket
	conns     []int
	notify    *hearer
	accepting chan struct{}
	ready     bool // accepting is closed
	said      bool
	unwell    bool // fails its checks from now on
	exited    chan struct{}
	gone      chan struct{}
	exit      spawn.Exit
	ended     bool
	child     bool // runs
	condemned bool // SIGKILL was sent
	told      int  // stop signals to the main process
	finished  sync.Once
}

// socket is a daemon's duplicate of a listener.
type socket struct {
	fd    int
	inode uint64
}

func (d *daemon) PID() int                { return d.pid }
func (d *daemon) Program() *spawn.Program { return d.program }
func (d *daemon) Exited() <-chan struct{} { return d.exited }
func (d *daemon) Exit() spawn.Exit        { return d.exit }
func (d *daemon) Gone() <-chan struct{}   { return d.gone }

func (d *daemon) HasExited() bool {
	select {
	case <-d.exited:
		return true
	default:
		return false
	}
}

func (d *daemon) Cgroup() uint64 { return 0 }

func (d *daemon) Members() ([]int, error) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	var all []int
	if !d.ended {
		all = append(all, d.pid)
	}
	if d.child {
		all = append(all, d.pid+1)
	}
	return all, nil
}

// Signal is called by the service's owner.
func (d *daemon) Signal(s syscall.Signal) error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if s == stopSignal {
		d.told++
		d.w.checkStop(d)
	}
	d.hear(s)
	return nil
}

func (d *daemon) SignalGroup(s syscall.Signal) error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.condemned = d.condemned || s == syscall.SIGKILL
	d.hear(s)
	if d.child && (s == syscall.SIGKILL || d.habits.child == meekChild) {
		d.child = false
		d.settle()
	}
	return nil
}

func (d *daemon) Kill() error { return d.SignalGroup(syscall.SIGKILL) }

// KillIf, as a child has no descriptors that could be read.
func (d *daemon) KillIf(func(pid int) bool) error { return nil }

func (d *daemon) Killed() []spawn.Member { return nil }
func (d *daemon) LowerOOM() error        { return nil }
func (d *daemon) BindWatch() *bind.Watch { return nil }
func (d *daemon) BindNote() string       { return "" }

func (d *daemon) hear(s syscall.Signal) {
	switch {
	case d.ended:
	case s == syscall.SIGKILL:
		d.end(spawn.Exit{Code: 137, Signal: s})
	case s != stopSignal:
	case d.habits.stop == stopsAtOnce:
		d.leave()
		d.end(spawn.Exit{Code: 143, Signal: s})
	case d.habits.stop == stopsByExit:
		d.leave()
		d.end(spawn.Exit{})
	case d.habits.stop == stopsSlowly:
		d.leave()
		time.AfterFunc(5*time.Second, func() { d.endBy(spawn.Exit{}) })
	}
}

// leave is what many daemons begin their end with.
func (d *daemon) leave() {
	if !d.habits.shuts {
		return
	}
	for _, s := range d.sockets {
		d.shut(s)
	}
}

// shut a listener down: the kernel resets who waits there, and tells the guard.
func (d *daemon) shut(s socket) {
	unix.Shutdown(s.fd, unix.SHUT_RDWR)
	d.w.dropQueue(s.inode)
	d.w.shutAt = time.Now()
	select {
	case d.w.shut <- struct{}{}:
	default:
	}
}

// endBy itself.
func (d *daemon) endBy(e spawn.Exit) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if !d.ended {
		d.end(e)
	}
}

func (d *daemon) end(e spawn.Exit) {
	d.ended, d.exit = true, e
	for _, fd := range d.conns {
		unix.Close(fd)
	}
	if !d.child {
		d.closeSockets()
	}
	close(d.exited)
	d.settle()
}

func (d *daemon) closeSockets() {
	for _, s := range d.sockets {
		unix.Close(s.fd)
	}
	d.sockets = nil
}

// settle ends the process group when nothing of it runs.
func (d *daemon) settle() {
	if d.ended && !d.child {
		d.finished.Do(func() {
			d.closeSockets()
			close(d.gone)
		})
	}
}

// serve accepts all that waits, if it accepts by now. A daemon that has been told to
// stop does not accept any more.
func (d *daemon) serve() {
	if d.ended || !d.ready || d.told > 0 {
		return
	}
	for _, s := range d.sockets {
		for queueOf(s.fd) > 0 {
			fd, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC)
			if err != nil {
				d.w.violate("generation %d can't accept: %v", d.number, err)
				return
			}
			d.conns = append(d.conns, fd)
			d.w.taken(s.inode)
		}
	}
}

// idle are those of its connections over which nothing goes any more.
func (d *daemon) idle() int {
	if d.habits.keeps {
		return len(d.conns)
	}
	return 0
}

// become ready, in the ways that it has.
func (d *daemon) become() {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if d.ended {
		return
	}
	if !d.ready {
		d.ready = true
		close(d.accepting)
	}
	if d.habits.notifies && !d.said {
		d.say()
	}
}

func (d *daemon) say() {
	d.said = true
	d.notify.hear(notify.Message{PID: d.pid, Fields: map[string]string{"READY": "1"}})
}

// hearer is a notify socket.
type hearer struct {
	address  string
	messages chan notify.Message
	closed   chan struct{}
	once     sync.Once
}

func (h *hearer) Address() string { return h.address }

func (h *hearer) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *hearer) Run(f func(notify.Message)) {
	for {
		select {
		case m := <-h.messages:
			f(m)
		case <-h.closed:
			return
		}
	}
}

func (h *hearer) hear(m notify.Message) {
	select {
	case h.messages <- m:
	default: // as the kernel does with one that nobody reads
	}
}
