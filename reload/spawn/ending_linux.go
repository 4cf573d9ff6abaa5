package spawn

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// killRounds is how often a kill looks for those that were forked meanwhile, at once;
// after the main process's end it goes on until nobody is left.
const killRounds = 8

// killed is what is known of a generation that gets SIGKILL.
type killed struct {
	all  bool         // whoever is found gets it
	once map[int]bool // who was named
	news []Member
}

// Members are the processes that run, ascending. Looking costs a few system calls for
// each process of the machine.
func (p *Process) Members() ([]int, error) {
	found, err := p.find()
	pids := make([]int, 0, len(found))
	for _, s := range found {
		pids = append(pids, s.pid)
	}
	return pids, err
}

// Cgroup is the number of the cgroup that it was started in, the inode of its directory in
// the unified hierarchy; 0 if it was given none.
func (p *Process) Cgroup() uint64 { return p.family.cgroup.number() }

// find is for others than the watcher: once the main process is reaped, its number may
// be somebody else's.
func (p *Process) find() ([]stat, error) {
	p.mu.Lock()
	reaped := p.reaped
	p.mu.Unlock()
	if reaped {
		return nil, nil
	}
	return p.family.find()
}

// SignalGroup sends one to every process of the generation: those of its process group
// at once, and those that have left it after that.
func (p *Process) SignalGroup(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	found, err := p.family.find()
	return errors.Join(p.signalGroup(s), err, p.signalEach(found, s))
}

func (p *Process) signalGroup(s syscall.Signal) error {
	if err := unix.Kill(-p.pid, s); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("can't signal process group %d: %w", p.pid, err)
	}
	return nil
}

// signalEach of those that the group's signal does not reach.
func (p *Process) signalEach(found []stat, s syscall.Signal) error {
	var errs []error
	for _, one := range found {
		if one.group != p.pid {
			errs = append(errs, signalOne(one, s))
		}
	}
	return errors.Join(errs...)
}

// Kill sends SIGKILL to every process of the generation, and to those that they are
// forking, until nobody is left.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	p.killed.all = true
	var errs []error
	for range killRounds {
		found, err := p.family.find()
		if err != nil {
			errs = append(errs, err, p.signalGroup(syscall.SIGKILL))
			break
		}
		news, err := p.killThese(found)
		errs = append(errs, err)
		if !news {
			break
		}
	}
	return errors.Join(errs...)
}

// killThese tells whether there is one among them that was not killed before.
func (p *Process) killThese(found []stat) (news bool, err error) {
	for _, s := range found {
		news = p.note(s) || news
	}
	p.family.cgroup.kill()
	return news, errors.Join(p.signalGroup(syscall.SIGKILL), p.signalEach(found, syscall.SIGKILL))
}

func (p *Process) note(s stat) bool {
	if p.killed.once[s.pid] {
		return false
	}
	if p.killed.once == nil {
		p.killed.once = map[int]bool{}
	}
	p.killed.once[s.pid] = true
	if s.pid != p.pid {
		p.killed.news = append(p.killed.news, Member{PID: s.pid, Name: s.name})
	}
	return true
}

// killMore kills those that are left, if all were to be killed.
func (p *Process) killMore(found []stat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed.all {
		p.killThese(found)
	}
}

// KillIf sends SIGKILL to those of the generation's processes, beside the main one, that
// f is true of.
func (p *Process) KillIf(f func(pid int) bool) error {
	found, err := p.find()
	errs := []error{err}
	for _, s := range found {
		if s.pid == p.pid || !f(s.pid) {
			continue
		}
		p.mu.Lock()
		p.note(s)
		p.mu.Unlock()
		errs = append(errs, signalOne(s, syscall.SIGKILL))
	}
	return errors.Join(errs...)
}

// Killed are the processes, beside the main one, that got SIGKILL since it was asked
// last.
func (p *Process) Killed() []Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := p.killed.news
	p.killed.news = nil
	return news
}
