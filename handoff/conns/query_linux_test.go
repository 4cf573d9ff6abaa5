package conns

import (
	"slices"
	"testing"
)

// While listeners come and go elsewhere, the kernel's list can have one twice.
func TestNoneTwice(t *testing.T) {
	a, b := Conn{Cookie: 1, Inode: 10}, Conn{Cookie: 2, Inode: 20}
	if got := once([]Conn{a, b, a, a, b}); !slices.EqualFunc(got, []Conn{a, b}, func(x, y Conn) bool { return x.Inode == y.Inode }) {
		t.Errorf("%+v", got)
	}
}
