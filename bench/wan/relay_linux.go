package wan

import (
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	mtu = 1500
	// queueLimit bounds the memory of a direction to about 100 MB: 25 ms at 2.6 million packets a second.
	queueLimit = 1 << 16
	// slack is the shortest sleep of a relay goroutine. Waking for every single packet would cost more than carrying it.
	slack = 500 * time.Microsecond
)

// wire holds what both directions share and what may change while they run.
type wire struct {
	delay atomic.Int64  // one way, in nanoseconds
	loss  atomic.Uint64 // bits of a float64
}

func (w *wire) setRTT(rtt time.Duration) { w.delay.Store(int64(rtt / 2)) }
func (w *wire) setLoss(share float64)    { w.loss.Store(math.Float64bits(share)) }

// packet is one packet on the wire.
type packet struct {
	due  time.Time
	size int
	data [mtu]byte
}

// direction carries packets one way. The delay is the same for all, so a plain FIFO is ordered by time.
type direction struct {
	wire  *wire
	from  io.Reader // one packet per Read; the owner closes it to end the direction
	to    io.Writer // one packet per Write
	dice  *rand.Rand
	queue chan *packet
	done  chan struct{} // closed by stop
	pool  sync.Pool
	ended sync.WaitGroup

	packets, lost, overrun atomic.Uint64
	maxQueue               atomic.Int64

	failed sync.Once
	err    error // read after ended
}

// newDirection makes a direction and starts nothing. stream tells the two directions of a seed apart.
func newDirection(w *wire, from io.Reader, to io.Writer, seed, stream uint64) *direction {
	return &direction{
		wire: w, from: from, to: to,
		dice:  rand.New(rand.NewPCG(seed, stream)),
		queue: make(chan *packet, queueLimit),
		done:  make(chan struct{}),
		pool:  sync.Pool{New: func() any { return new(packet) }},
	}
}

func (d *direction) start() {
	d.ended.Go(d.pickUp)
	d.ended.Go(d.deliver)
}

// wait ends the direction and returns why it had failed before, if it had. The caller closes from first.
func (d *direction) wait() error {
	close(d.done)
	d.ended.Wait()
	return d.err
}

// pickUp reads packets until from is closed.
func (d *direction) pickUp() {
	for {
		p := d.pool.Get().(*packet)
		n, err := d.from.Read(p.data[:])
		if err != nil {
			d.fail(err)
			return
		}
		p.size = n
		if !d.accept(p) {
			d.pool.Put(p)
		}
	}
}

// accept puts a packet on the wire, or says that the wire has lost it.
func (d *direction) accept(p *packet) bool {
	d.packets.Add(1)
	if d.dice.Float64() < math.Float64frombits(d.wire.loss.Load()) {
		d.lost.Add(1)
		return false
	}
	p.due = time.Now().Add(time.Duration(d.wire.delay.Load()))
	select {
	case d.queue <- p:
	default:
		d.overrun.Add(1)
		return false
	}
	// Only this goroutine raises it, so load and store need not be one step.
	if queued := int64(len(d.queue)); queued > d.maxQueue.Load() {
		d.maxQueue.Store(queued)
	}
	return true
}

// deliver writes each packet when it is due, until the direction is stopped.
func (d *direction) deliver() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-d.done:
			return
		case p := <-d.queue:
			if !d.sleepUntil(p.due, timer) {
				return
			}
			if _, err := d.to.Write(p.data[:p.size]); err != nil {
				d.fail(err)
				return
			}
			d.pool.Put(p)
		}
	}
}

// sleepUntil returns false when the direction is stopped first.
func (d *direction) sleepUntil(due time.Time, timer *time.Timer) bool {
	left := time.Until(due)
	if left <= 0 {
		return true
	}
	timer.Reset(max(left, slack))
	select {
	case <-d.done:
		return false
	case <-timer.C:
		return true
	}
}

// fail keeps the first error. That a device was closed is how a direction ends, not a failure.
func (d *direction) fail(err error) {
	if errors.Is(err, os.ErrClosed) {
		return
	}
	d.failed.Do(func() { d.err = err })
}

func (d *direction) flow() Flow {
	return Flow{
		Packets:  d.packets.Load(),
		Lost:     d.lost.Load(),
		Overrun:  d.overrun.Load(),
		MaxQueue: int(d.maxQueue.Load()),
	}
}
