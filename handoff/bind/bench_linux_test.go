package bind

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkBind is one bind of a daemon's, as the daemon sees it: without a filter, past
// a holder that lets it go on, and kept, the duplicate bound by the holder.
func BenchmarkBind(b *testing.B) {
	b.Run("plain", func(b *testing.B) {
		took, err := bindMany(b.N)
		must(b, err)
		b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/bind")
	})
	for _, way := range []string{"continue", "keep"} {
		b.Run(way, func(b *testing.B) {
			d := start(b, setup{})
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan int)
			go func() { ended <- answer(ctx, d, way) }()
			took, err := time.ParseDuration(d.do(b, "bench %d", b.N))
			must(b, err)
			cancel()
			if seen := <-ended; seen != b.N {
				b.Fatalf("%d binds were seen, want %d", seen, b.N)
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/bind")
		})
	}
}

// bindMany is the time in bind(2) alone.
func bindMany(n int) (took time.Duration, err error) {
	at := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		begin := time.Now()
		err = unix.Bind(fd, at)
		took += time.Since(begin)
		unix.Close(fd)
		if err != nil {
			return 0, err
		}
	}
	return took, nil
}

// answer counts what it has answered.
func answer(ctx context.Context, d *daemon, way string) (seen int) {
	for {
		c, err := d.watch.Next(ctx)
		if err != nil {
			return seen
		}
		seen++
		if way != "keep" {
			c.Continue()
			continue
		}
		if s, err := c.Socket(); err == nil {
			c.Answer(s.Bind(c.Addr))
			s.Close()
		}
	}
}
