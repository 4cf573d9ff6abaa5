package handoff

// replacePad gives l, which has just joined at the end, the place of the first pad,
// by letting that leave. Were each generation to stand behind the last one's pads,
// there would be more of them with every reload that overlaps a drain. The array is
// as long as before l joined, so live is as safe as it was.
func (g *group) replacePad(l *Listener) error {
	p := g.array.firstPad()
	if p == nil || g.array[len(g.array)-1] != l {
		return nil
	}
	if err := g.takeOut(p); err != nil {
		return err
	}
	return p.closeFD()
}

// pad lets as many pads join as the loose members make necessary.
func (g *group) pad() error {
	for range g.array.padsMissing() {
		if _, err := g.make(true); err != nil {
			return err
		}
	}
	return nil
}

// takeOut is a leave of our own.
func (g *group) takeOut(l *Listener) error {
	g.hide(l)
	g.kernel.shutdown(l.fd)
	g.changed = true
	if err := g.forget(l); err != nil {
		return err
	}
	return g.look()
}

// collectPads closes the pads that hold no place any more.
func (g *group) collectPads() error {
	for _, p := range append(array(nil), g.array...) {
		if !p.pad || !g.array.mayLeave(p, g.ep.plan.names) {
			continue
		}
		if err := g.takeOut(p); err != nil {
			return err
		}
		if err := p.closeFD(); err != nil {
			return err
		}
	}
	return nil
}
