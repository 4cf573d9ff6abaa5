package wan

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const benchRTT = 50 * time.Millisecond

// answerOne is a server that speaks first: one byte, then the end.
func answerOne(conn net.Conn) { conn.Write([]byte("x")) }

// visitServer is one client: connect, read the byte, see the end.
func visitServer(ctx context.Context, l *Link, address string) error {
	conn, err := l.Client().DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(conn)
	if err == nil && len(got) != 1 {
		err = fmt.Errorf("can't read the one byte: got %d", len(got))
	}
	return err
}

// BenchmarkClosedLoop asks how many connections a second the wire carries when each client starts its next one as soon as the
// last has ended; the bound is the number of clients over two round trips.
func BenchmarkClosedLoop(b *testing.B) {
	for _, clients := range []int{16, 128, 512} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			l, address, count := benchLink(b)
			var left atomic.Int64
			left.Store(int64(b.N))
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						count.run(func(ctx context.Context) error { return visitServer(ctx, l, address) })
					}
				})
			}
			all.Wait()
			count.report(l)
		})
	}
}

// BenchmarkConstant asks what a constant rate costs and how long a visit takes from its intended time.
func BenchmarkConstant(b *testing.B) {
	for _, rate := range []int{500, 1500, 2000} {
		b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) {
			l, address, count := benchLink(b)
			var all sync.WaitGroup
			start := time.Now()
			for i := range b.N {
				intended := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
				time.Sleep(time.Until(intended))
				all.Go(func() {
					count.run(func(ctx context.Context) error { return visitServer(ctx, l, address) })
					count.took(time.Since(intended))
				})
			}
			all.Wait()
			count.report(l)
		})
	}
}

// BenchmarkSocket is the price of one socket made on a side, next to one made at home.
func BenchmarkSocket(b *testing.B) {
	l := openLink(b, Options{})
	make := func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	for name, run := range map[string]func(func() error) error{
		"side": l.Client().Do,
		"home": func(f func() error) error { return f() },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := run(make); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// tally collects what a benchmark reports.
type tally struct {
	b      *testing.B
	ctx    context.Context
	failed atomic.Int64
	start  time.Time
	cpu    time.Duration

	mu        sync.Mutex
	latencies []time.Duration
}

func benchLink(b *testing.B) (*Link, string, *tally) {
	l := openLink(b, Options{RTT: benchRTT})
	address := serve(b, l.Server(), l.Server().Addr4(), answerOne)
	b.ResetTimer()
	return l, address, &tally{b: b, ctx: withPatience(b), start: time.Now(), cpu: cpuTime()}
}

func (c *tally) run(f func(context.Context) error) {
	if err := f(c.ctx); err != nil && c.failed.Add(1) == 1 {
		c.b.Error(err)
	}
}

func (c *tally) took(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latencies = append(c.latencies, d)
}

func (c *tally) report(l *Link) {
	elapsed, cpu := time.Since(c.start), cpuTime()-c.cpu
	c.b.ReportMetric(float64(c.b.N)/elapsed.Seconds(), "conn/s")
	c.b.ReportMetric(100*cpu.Seconds()/elapsed.Seconds(), "%cpu")
	c.b.ReportMetric(float64(cpu.Microseconds())/float64(c.b.N), "cpu-µs/conn")
	c.b.ReportMetric(float64(c.failed.Load()), "failed")
	s, err := l.Stats()
	if err != nil {
		c.b.Fatal(err)
	}
	packets := s.ToServer.Packets + s.ToClient.Packets
	c.b.ReportMetric(float64(packets)/float64(c.b.N), "packets/conn")
	c.b.ReportMetric(float64(s.ToServer.Overrun+s.ToClient.Overrun), "overrun")
	c.b.ReportMetric(float64(max(s.ToServer.MaxQueue, s.ToClient.MaxQueue)), "queue-max")
	if n := len(c.latencies); n > 0 {
		slices.Sort(c.latencies)
		c.b.ReportMetric(float64(c.latencies[n/2].Microseconds())/1000, "p50-ms")
		c.b.ReportMetric(float64(c.latencies[n*99/100].Microseconds())/1000, "p99-ms")
		c.b.ReportMetric(float64(c.latencies[n-1].Microseconds())/1000, "max-ms")
	}
}

// cpuTime is what the whole process has used, the kernel's work in its system calls included.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
