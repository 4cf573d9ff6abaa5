package wan

import (
	"errors"
	"io"
	"math"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// source is a device that packets are read from; closing it ends the reader as closing a device does.
type source chan []byte

func (s source) Read(p []byte) (int, error) {
	packet, open := <-s
	if !open {
		return 0, os.ErrClosed
	}
	return copy(p, packet), nil
}

type arrival struct {
	at   time.Duration
	data string
}

// sink is a device that notes what is written to it and when.
type sink struct {
	start    time.Time
	arrivals []arrival
	err      error
}

func (s *sink) Write(p []byte) (int, error) {
	s.arrivals = append(s.arrivals, arrival{time.Since(s.start), string(p)})
	return len(p), s.err
}

func testDirection(rtt time.Duration, loss float64, seed uint64, to io.Writer) (*direction, source) {
	from := make(source)
	w := new(wire)
	w.setRTT(rtt)
	w.setLoss(loss)
	return newDirection(w, from, to, seed, 1), from
}

func TestPacketsArriveHalfARoundTripLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &sink{start: time.Now()}
		d, from := testDirection(50*time.Millisecond, 0, 0, to)
		d.start()
		var want []arrival
		for i := range 30 {
			at := time.Duration(i) * time.Millisecond
			from <- []byte{'a' + byte(i)}
			want = append(want, arrival{at + 25*time.Millisecond, string(rune('a' + i))})
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		close(from)
		if err := d.wait(); err != nil {
			t.Fatal(err)
		}
		if len(to.arrivals) != len(want) {
			t.Fatalf("%d packets arrived, want %d", len(to.arrivals), len(want))
		}
		for i, got := range to.arrivals {
			if got != want[i] {
				t.Errorf("packet %d: got %v, want %v", i, got, want[i])
			}
		}
		if f := d.flow(); f.Packets != 30 || f.Lost != 0 || f.MaxQueue < 24 || f.MaxQueue > 26 {
			t.Errorf("flow %+v, want 30 packets, 25 at once", f)
		}
	})
}

func TestPacketsAreNeverEarlyAndAtMostAMillisecondLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &sink{start: time.Now()}
		d, from := testDirection(2*time.Millisecond, 0, 0, to)
		d.start()
		for range 100 {
			from <- []byte("x")
			time.Sleep(70 * time.Microsecond)
		}
		time.Sleep(time.Second)
		close(from)
		d.wait()
		if len(to.arrivals) != 100 {
			t.Fatalf("%d packets arrived, want 100", len(to.arrivals))
		}
		for i, got := range to.arrivals {
			due := time.Duration(i)*70*time.Microsecond + time.Millisecond
			if late := got.at - due; late < 0 || late > time.Millisecond {
				t.Errorf("packet %d is late by %s, want 0 to 1ms", i, late)
			}
		}
	})
}

func TestAShorterRoundTripDoesNotReorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &sink{start: time.Now()}
		d, from := testDirection(50*time.Millisecond, 0, 0, to)
		d.start()
		from <- []byte("first")
		synctest.Wait()
		d.wire.setRTT(0)
		from <- []byte("second")
		time.Sleep(time.Second)
		close(from)
		d.wait()
		late := 25 * time.Millisecond
		if got := to.arrivals; len(got) != 2 || got[0] != (arrival{late, "first"}) || got[1] != (arrival{late, "second"}) {
			t.Errorf("got %v, want first and second after %s", got, late)
		}
	})
}

func TestLossIsTheChosenShareAndRepeats(t *testing.T) {
	const n, share = 100_000, 0.02
	fates := func(seed uint64) (fates []bool, lost float64) {
		d, _ := testDirection(0, share, seed, io.Discard)
		for range n {
			kept := d.accept(new(packet))
			if kept {
				<-d.queue
			} else {
				lost++
			}
			fates = append(fates, kept)
		}
		if f := d.flow(); f.Packets != n || f.Lost != uint64(lost) || f.Overrun != 0 {
			t.Errorf("flow %+v, want %d packets, %v lost", f, n, lost)
		}
		return fates, lost
	}
	first, lost := fates(1)
	if sigma := math.Sqrt(n * share * (1 - share)); math.Abs(lost-n*share) > 3*sigma {
		t.Errorf("%v of %d lost, want %v ± %v", lost, n, n*share, 3*sigma)
	}
	again, _ := fates(1)
	other, _ := fates(2)
	same := func(a, b []bool) bool {
		for i := range a {
			if a[i] != b[i] {
				return false
			}
		}
		return true
	}
	if !same(first, again) || same(first, other) {
		t.Error("the seed does not decide which packets are lost")
	}
}

func TestAFullWireOverruns(t *testing.T) {
	d, _ := testDirection(time.Hour, 0, 0, io.Discard)
	p := new(packet)
	for range queueLimit + 5 {
		d.accept(p)
	}
	if f := d.flow(); f.Overrun != 5 || f.MaxQueue != queueLimit {
		t.Errorf("flow %+v, want 5 overrun and %d queued", f, queueLimit)
	}
}

func TestStopDoesNotWaitForPacketsOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &sink{start: time.Now()}
		d, from := testDirection(2*time.Hour, 0, 0, to)
		d.start()
		from <- []byte("x")
		synctest.Wait()
		close(from)
		d.wait()
		if took := time.Since(to.start); took != 0 || len(to.arrivals) != 0 {
			t.Errorf("stopped after %s with %d packets delivered, want at once and none", took, len(to.arrivals))
		}
	})
}

func TestADeadDeviceIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		to := &sink{start: time.Now(), err: broken}
		d, from := testDirection(0, 0, 0, to)
		d.start()
		from <- []byte("x")
		synctest.Wait()
		close(from)
		if err := d.wait(); !errors.Is(err, broken) {
			t.Errorf("got %v, want %v", err, broken)
		}
	})
}
