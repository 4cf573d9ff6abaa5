package handoff

import "fmt"

// Plan says which listeners of an endpoint get its traffic.
type Plan struct {
	// Live share all new connections evenly, less what Candidate gets.
	Live []*Listener
	// Candidate share a part of the new connections, 0 ≤ Share ≤ 1.
	Candidate []*Listener
	Share     float64
	// Probe share the connections that [Dial] makes, and no others.
	Probe []*Listener
}

func (p Plan) check(is func(*Listener) bool) error {
	if len(p.Live) == 0 {
		return fmt.Errorf("can't steer: no live listener")
	}
	if p.Share < 0 || p.Share > 1 {
		return fmt.Errorf("can't steer: share %g is not between 0 and 1", p.Share)
	}
	for _, l := range p.named() {
		if !is(l) {
			return fmt.Errorf("can't steer to %s: %w", l, ErrNotMember)
		}
	}
	return nil
}

// named lists every listener that the plan's program may answer with.
func (p Plan) named() []*Listener {
	all := append([]*Listener(nil), p.Live...)
	if p.Share > 0 {
		all = append(all, p.Candidate...)
	}
	return append(all, p.Probe...)
}

// without is the plan after l has gone.
func (p Plan) without(l *Listener) Plan {
	p.Live, p.Candidate, p.Probe = drop(p.Live, l), drop(p.Candidate, l), drop(p.Probe, l)
	if len(p.Candidate) == 0 {
		p.Share = 0
	}
	return p
}

func drop(from []*Listener, l *Listener) []*Listener {
	var kept []*Listener
	for _, m := range from {
		if m != l {
			kept = append(kept, m)
		}
	}
	return kept
}

func (p Plan) names(l *Listener) bool {
	for _, m := range p.named() {
		if m == l {
			return true
		}
	}
	return false
}
