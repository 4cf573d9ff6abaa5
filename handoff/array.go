package handoff

// array is the mirror of the kernel's array of a group. What it must know
// exactly is its length and the places of protected members, those of daemons
// that have not been told to stop; pads and loose members may stand in another
// order than here after several of them have left between two looks.
type array []*Listener

func (a array) index(l *Listener) int {
	for i, m := range a {
		if m == l {
			return i
		}
	}
	return -1
}

func (a array) loose() int {
	n := 0
	for _, m := range a {
		if m.loose {
			n++
		}
	}
	return n
}

// protected: its place must not change unseen. An inherited one is used again after
// its daemon has ended, so that holds while it is loose, too, if its place is known.
func (l *Listener) protected() bool {
	if l.inherited {
		return !l.unsure
	}
	return !l.pad && !l.loose
}

// hidden tells whether there are members, and no new connection can find any.
func (a array) hidden() bool {
	for _, m := range a {
		if !m.hidden {
			return false
		}
	}
	return len(a) > 0
}

// padsMissing is how many pads must join so that no protected member moves,
// whatever the order in which all loose ones leave: each leave takes one from
// the array's length, and a member moves only when it has become the last.
func (a array) padsMissing() int {
	loose := a.loose()
	if loose == 0 {
		return 0
	}
	highest := -1
	for i, m := range a {
		if m.protected() {
			highest = i
		}
	}
	return max(0, highest+1-(len(a)-loose))
}

// firstPad is the pad in the lowest place that is known; nil if there is none.
func (a array) firstPad() *Listener {
	for _, m := range a {
		if m.pad && !m.unsure {
			return m
		}
	}
	return nil
}

// unsettle forgets the places of all that may have changed them unseen.
func (a array) unsettle() {
	for _, m := range a {
		m.unsure = m.unsure || !m.protected()
	}
}

// inherit is called when moved, the last, has taken the place of one that left. A
// place that was not known is not known of its new holder either, unless only one is
// left.
func (a array) inherit(moved, from *Listener) {
	if moved != from && from.unsure {
		moved.unsure = true
	}
	if len(a) == 1 {
		a[0].unsure = false
	}
}

// removed is the array after the kernel has taken l out.
func (a array) removed(l *Listener) array {
	i := a.index(l)
	if i < 0 {
		return a
	}
	last := len(a) - 1
	a[i] = a[last]
	a[last] = nil
	return a[:last]
}

// mayLeave tells whether l can be taken out now, by us, with nobody going
// astray before the program is attached anew. With others loose, a member of
// theirs could leave at the same moment, so nothing protected may move at all.
func (a array) mayLeave(l *Listener, steered func(*Listener) bool) bool {
	last := a[len(a)-1]
	others := a.loose()
	if l.loose {
		others--
	}
	if others > 0 {
		return !last.protected() && append(array(nil), a...).removed(l).padsMissing() == 0
	}
	if l.unsure && len(a) > 2 {
		return !last.protected() // who is last takes a place that is not known
	}
	// Of two, the other is all that is left: an index out of range is a hash over one.
	return last == l || len(a) == 2 || !steered(last)
}
