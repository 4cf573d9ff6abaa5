package handoff

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A client that has sent all it wanted to, and said so, still gets its answer.
func TestSettlingFollowsAHalfClosedConnection(t *testing.T) {
	old, c := switched(t)
	fd := acceptOne(t, old)
	defer unix.Close(fd)
	c.Write([]byte("question"))
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := readAll(fd); err != nil || n != len("question") { // up to its end: the FIN has come
		t.Fatalf("read %d bytes, %v", n, err)
	}
	done := settling(t, t.Context(), old)
	notYet(t, done, "a client waits for its answer")
	unix.Write(fd, []byte("answer"))
	if left := <-done; !left.Clean() {
		t.Errorf("settled as %+v", left)
	}
}

// readAll of a blocking socket.
func readAll(fd int) (sum int, err error) {
	b := make([]byte, 64)
	for {
		n, err := unix.Read(fd, b)
		if n <= 0 || err != nil {
			return sum, err
		}
		sum += n
	}
}

// Clients that are silent, or whom nobody accepts, are waited for as long as an answer
// may take, and no longer.
func TestSettlingGivesUpSilentOnes(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	old, live := mustOpen(t, ep), mustOpen(t, ep)
	for range 2 {
		c, err := net.Dial("tcp", ep.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	mustSteer(t, ep, Plan{Live: []*Listener{live}})
	fd := acceptOne(t, old)
	defer unix.Close(fd)
	ctx, cancel := context.WithTimeout(t.Context(), 2*answerTimeout)
	defer cancel()
	left := <-settling(t, ctx, old)
	if left.Queued != 1 || left.HalfOpen != 0 || left.Unanswered != 0 || left.Took < answerTimeout-time.Second || ctx.Err() != nil {
		t.Errorf("settled as %+v", left)
	}
}

// What is left is told as it is now: a handshake that has been finished since is a
// connection without an answer.
func TestWhatSettlingLeavesIsOfNow(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0,defer-accept=30s"))
	old, live := mustOpen(t, ep), mustOpen(t, ep)
	mustSteer(t, ep, Plan{Live: []*Listener{old}})
	c, err := net.Dial("tcp", ep.Addr().String()) // half-open until it has sent something
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mustSteer(t, ep, Plan{Live: []*Listener{live}})
	ctx, cancel := context.WithCancel(t.Context())
	done := settling(t, ctx, old)
	notYet(t, done, "a handshake is under way")
	c.Write([]byte("question"))
	fd := acceptOne(t, old)
	defer unix.Close(fd)
	notYet(t, done, "it has been accepted and not answered")
	cancel()
	if left := <-done; left.HalfOpen != 0 || left.Queued != 0 || left.Unanswered != 1 {
		t.Errorf("settled as %+v", left)
	}
}

// Nor is what waits forgotten where the end comes before anything is known.
func TestSettlingThatEndsAtOnce(t *testing.T) {
	old, _ := switched(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if left := <-settling(t, ctx, old); left.Queued != 1 || left.Clean() {
		t.Errorf("settled as %+v", left)
	}
}
