//go:build linux

package handoff

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkOpenPass opens n endpoints with a listener each, passes the listeners to
// a receiver as the shim gets them, and closes everything.
func BenchmarkOpenPass(b *testing.B) {
	for _, n := range []int{1, 16, 253, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			needFiles(b, 2*n)
			ours, theirs := benchPair(b)
			var open, pass, closing, whole samples
			for b.Loop() {
				var opened, arrived []File
				var eps []*Endpoint
				o := open.time(func() { eps, opened = openMany(b, n) })
				p := pass.time(func() { arrived = passMany(b, ours, theirs, opened) })
				checkArrived(b, opened, arrived)
				c := closing.time(func() { closeMany(b, eps, arrived) })
				whole = append(whole, o+p+c)
			}
			whole.report(b)
			for unit, s := range map[string]samples{"open-p50-µs": open, "pass-p50-µs": pass, "close-p50-µs": closing} {
				b.ReportMetric(float64(s.percentile(50).Nanoseconds())/1e3, unit)
			}
			b.ReportMetric(float64(whole.percentile(50).Nanoseconds())/1e3/float64(n), "p50-µs/listener")
		})
	}
}

// needFiles skips where n descriptors and some can't be open.
func needFiles(b *testing.B, n int) {
	b.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	if limit.Cur < uint64(n+64) {
		b.Skipf("needs %d descriptors, RLIMIT_NOFILE is %d", n+64, limit.Cur)
	}
}

func benchPair(b *testing.B) (ours, theirs *net.UnixConn) {
	b.Helper()
	ours, child, err := Pair()
	if err != nil {
		b.Fatal(err)
	}
	defer child.Close()
	b.Cleanup(func() { ours.Close() })
	c, err := net.FileConn(child)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return ours, c.(*net.UnixConn)
}

func openMany(b *testing.B, n int) ([]*Endpoint, []File) {
	eps, files := make([]*Endpoint, n), make([]File, n)
	for i := range n {
		ep, err := Open(b.Context(), Spec{Network: TCP, Host: "127.0.0.1"}, OpenOptions{})
		if err != nil {
			b.Fatal(err)
		}
		l, err := ep.Open()
		if err != nil {
			b.Fatal(err)
		}
		eps[i], files[i] = ep, File{Name: fmt.Sprintf("listener-%d", i), FD: l.FD()}
	}
	return eps, files
}

// passMany returns what arrived, which is the caller's to close.
func passMany(b *testing.B, ours, theirs *net.UnixConn, files []File) []File {
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- Send(ctx, ours, Message{Files: files}) }()
	m, err := Receive(ctx, theirs, Limit{Files: len(files)})
	if sendErr := <-sent; sendErr != nil || err != nil {
		b.Fatal(sendErr, err)
	}
	return m.Files
}

// checkArrived: all of them, each under its name and the socket that it was. A
// benchmark that passed one would be fast whatever n says.
func checkArrived(b *testing.B, sent, got []File) {
	b.Helper()
	if len(got) != len(sent) {
		b.Fatalf("%d listeners arrived of %d", len(got), len(sent))
	}
	for i := range sent {
		want, err := inodeOf(sent[i].FD)
		if err != nil {
			b.Fatal(err)
		}
		inode, err := inodeOf(got[i].FD)
		if err != nil || got[i].Name != sent[i].Name || inode != want || got[i].FD == sent[i].FD {
			b.Fatalf("listener %d arrived as %q, socket %d, not %q, %d (%v)", i, got[i].Name, inode, sent[i].Name, want, err)
		}
	}
}

func closeMany(b *testing.B, eps []*Endpoint, received []File) {
	CloseFiles(received)
	for _, ep := range eps {
		if err := ep.CloseAll(); err != nil {
			b.Fatal(err)
		}
	}
}
