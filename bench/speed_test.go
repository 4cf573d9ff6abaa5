package bench

import (
	"io"
	"net"
	"testing"
)

// BenchmarkPerRequest is the engine's own cost, with a server in the same
// process that does nothing: what it can offer at most on this machine.
func BenchmarkPerRequest(b *testing.B) {
	s := serve(b, func(conn *net.TCPConn, _ int) {
		answering(conn, func(int) string { io.WriteString(conn, okClose); return "" })
	})
	b.ReportAllocs()
	r := mustRun(b, Load{Kind: PerRequest, Addr: s.addr, Max: b.N})
	if r.OK != b.N {
		b.Fatalf("%d of %d ok: %v", r.OK, b.N, r.Failures)
	}
	b.ReportMetric(r.AchievedRate, "req/s")
	b.ReportMetric(float64(r.Latency.P99().Microseconds()), "p99-µs")
}

// BenchmarkKeepAlive is the same on kept connections.
func BenchmarkKeepAlive(b *testing.B) {
	s := serve(b, func(conn *net.TCPConn, _ int) {
		answering(conn, func(int) string { return okKeep })
	})
	b.ReportAllocs()
	r := mustRun(b, Load{Kind: KeepAlive, Addr: s.addr, Max: b.N})
	if r.OK != b.N {
		b.Fatalf("%d of %d ok: %v", r.OK, b.N, r.Failures)
	}
	b.ReportMetric(r.AchievedRate, "req/s")
}
