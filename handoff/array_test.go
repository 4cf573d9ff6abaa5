package handoff

import (
	"testing"

	"pgregory.net/rapid"
)

// kernelArray is what net/core/sock_reuseport.c does, and nothing more.
type kernelArray []*Listener

func (k *kernelArray) leave(l *Listener) {
	for i, m := range *k {
		if m == l {
			(*k)[i] = (*k)[len(*k)-1]
			*k = (*k)[:len(*k)-1]
			return
		}
	}
}

// Whatever joins and in whatever order loose members leave by themselves, no
// protected member may stand elsewhere than where the mirror has it.
func TestArrayProtectedNeverMoveUnseen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var mirror array
		var kernel kernelArray
		join := func(pad bool) {
			l := &Listener{pad: pad, member: true}
			mirror, kernel = append(mirror, l), append(kernel, l)
		}
		fill := func() {
			for range mirror.padsMissing() {
				join(true)
			}
		}
		for range rapid.IntRange(1, 12).Draw(t, "members") {
			join(false)
		}
		for _, l := range append(array(nil), mirror...) {
			if rapid.Bool().Draw(t, "loose") {
				l.loose = true
				fill()
			}
		}
		for _, l := range rapid.Permutation(loosed(mirror)).Draw(t, "order") {
			kernel.leave(l)
		}
		for i, m := range mirror {
			if m.protected() && (i >= len(kernel) || kernel[i] != m) {
				t.Fatalf("the member at %d of %d has moved", i, len(mirror))
			}
		}
	})
}

func loosed(a array) []*Listener {
	var out []*Listener
	for _, l := range a {
		if l.loose {
			out = append(out, l)
		}
	}
	return out
}

// A leave that mayLeave allows leaves no moment in which an index of the program
// means somebody else, unless only one is left to be meant.
func TestArrayMayLeave(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a array
		for range rapid.IntRange(2, 8).Draw(t, "members") {
			a = append(a, &Listener{pad: rapid.Bool().Draw(t, "pad")})
		}
		live := rapid.SampledFrom(a).Draw(t, "live")
		live.pad = false
		leaver := rapid.SampledFrom(a).Filter(func(l *Listener) bool { return l != live }).Draw(t, "leaver")
		if !a.mayLeave(leaver, func(l *Listener) bool { return l == live }) {
			return
		}
		at := a.index(live)
		after := append(array(nil), a...).removed(leaver)
		if len(after) > 1 && (at >= len(after) || after[at] != live) {
			t.Fatalf("live was at %d of %d and is not there any more", at, len(a))
		}
	})
}
