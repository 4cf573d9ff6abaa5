//go:build linux

package handoff

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkSettle is the least that lies between a switch and the stop signal. Most
// of it is the wait for a grace period of the kernel (membarrier).
func BenchmarkSettle(b *testing.B) {
	b.Run("idle", func(b *testing.B) {
		_, l := benchEndpoint(b, 2)
		benchmarkSettle(b, l[0])
	})
	b.Run("1000 idle connections", func(b *testing.B) {
		const n = 1000
		needFiles(b, 2*n)
		ep, l := benchEndpoint(b, 2)
		holdConnections(b, ep, l[0], n)
		benchmarkSettle(b, l[0])
	})
}

func benchmarkSettle(b *testing.B, l *Listener) {
	var all, barriers samples
	for b.Loop() {
		all.time(func() { settleOnce(b, l) })
		b.StopTimer()
		barriers.time(func() {
			if err := barrier(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
		b.StartTimer()
	}
	all.report(b)
	b.ReportMetric(float64(barriers.percentile(50).Nanoseconds())/1e3, "membarrier-p50-µs")
}

func settleOnce(b *testing.B, l *Listener) {
	s := NewSettler(l)
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
	defer cancel()
	left, err := s.Wait(ctx)
	if err != nil || !left.Clean() {
		b.Fatalf("it has not settled: %+v, %v", left, err)
	}
}

// holdConnections keeps n established connections at l that have had an answer:
// younger ones without any would be waited for.
func holdConnections(b *testing.B, ep *Endpoint, l *Listener, n int) {
	b.Helper()
	for range n {
		client, err := net.Dial("tcp", ep.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { client.Close() })
		server, ok, err := l.Accept()
		if err != nil || !ok {
			b.Fatalf("a client did not arrive: %v", err)
		}
		b.Cleanup(func() { unix.Close(server) })
		if _, err := unix.Write(server, []byte("x")); err != nil {
			b.Fatal(err)
		}
		client.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := client.Read(make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
	}
}
