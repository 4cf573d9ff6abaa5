package reload

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Before a candidate is ended, its listener is out of the way of new connections: one
// that it shuts down then moves no other's place.
func TestGivenUpCandidateIsLoose(t *testing.T) {
	t.Parallel()
	f, underWay := reloading(t)
	device := 0
	f.ask(t.Context(), func() {
		fd := f.runs[2].listeners.all()[0].FD()
		f.giveUpCandidate("so it is")
		device, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	})
	if device == 0 {
		t.Error("its listener can still be found")
	}
	failure(t, <-underWay)
}
