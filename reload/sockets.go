package reload

import (
	"iter"
	"slices"

	"github.com/gapless-dev/gapless/handoff"
)

// sockets are the listeners of one generation, by endpoint. There may be none at an
// endpoint, and several where each of a daemon's workers binds its own.
type sockets [][]*handoff.Listener

func (ss sockets) at(i int) []*handoff.Listener {
	if i >= len(ss) {
		return nil
	}
	return ss[i]
}

func (ss sockets) all() []*handoff.Listener { return slices.Concat(ss...) }

func (ss *sockets) add(i int, l *handoff.Listener) {
	for len(*ss) <= i {
		*ss = append(*ss, nil)
	}
	(*ss)[i] = append((*ss)[i], l)
}

func (ss sockets) remove(i int, l *handoff.Listener) {
	if j := slices.Index(ss.at(i), l); j >= 0 {
		ss[i] = slices.Delete(slices.Clone(ss[i]), j, j+1) // whoever is going through them goes on
	}
}

func (ss sockets) has(i int, l *handoff.Listener) bool { return slices.Contains(ss.at(i), l) }

// each goes through them with their endpoints; they may be removed meanwhile.
func (ss sockets) each() iter.Seq2[int, *handoff.Listener] {
	return func(yield func(int, *handoff.Listener) bool) {
		for i, listeners := range ss {
			for _, l := range listeners {
				if !yield(i, l) {
					return
				}
			}
		}
	}
}
