package spawn

import "context"

// Member is a process of a generation.
type Member struct {
	PID  int
	Name string // its comm: at most 15 bytes, and its own choice
}

// PID of the main process, which is also the number of its process group.
func (p *Process) PID() int { return p.pid }

// Program is what runs, if the order wanted to know it, else nil. Its file is the
// caller's to close.
func (p *Process) Program() *Program { return p.program }

// Exited is closed when the main process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// HasExited tells whether Exited is closed.
func (p *Process) HasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Exit is how the main process ended; it is valid once Exited is closed.
func (p *Process) Exit() Exit { return p.exit }

// Gone is closed when all processes of the generation have ended and the main one has
// been reaped. Nothing is left of the Process then.
func (p *Process) Gone() <-chan struct{} { return p.gone }

// Wait returns when all is gone, or with ctx's error.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
