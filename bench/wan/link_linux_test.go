package wan

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// patience bounds every wait of the tests; nothing that works comes near it.
const patience = 60 * time.Second

// lossSeed keeps both directions within 1.1 standard deviations of 2 % at every count from 1,000 to 40,000 packets, so that
// three of them are only left when the relay is wrong.
const lossSeed = 108

// openLink opens a link for the time of the test, or skips the test where there can be none.
func openLink(t testing.TB, o Options) *Link {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "network namespaces need root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		skip(t, err.Error())
	}
	l, err := Open(o)
	if errors.Is(err, unix.EPERM) {
		skip(t, err.Error()) // root of a container
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

func skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("GAPLESS_REQUIRE_ALL") == "1" {
		t.Fatalf("may not be skipped: %s", reason)
	}
	t.Skip(reason)
}

func withPatience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// serve runs handle for each connection to an address on a side, until the test ends; it returns where.
func serve(t testing.TB, s Side, ip netip.Addr, handle func(net.Conn)) string {
	t.Helper()
	ln, err := s.Listen(withPatience(t), "tcp", netip.AddrPortFrom(ip, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	var handlers sync.WaitGroup
	handlers.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			handlers.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		handlers.Wait()
	})
	return ln.Addr().String()
}

func echo(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(patience))
	// Bare, so that it does not splice: net keeps splice's pipes in a pool, where the search for leaked files finds them.
	io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
}

func dial(t testing.TB, s Side, address string) net.Conn {
	t.Helper()
	conn, err := s.DialContext(withPatience(t), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func TestConnectAndAnswerTakeARoundTrip(t *testing.T) {
	const rtt = 30 * time.Millisecond
	l := openLink(t, Options{RTT: rtt})
	for _, ip := range []netip.Addr{l.Server().Addr4(), l.Server().Addr6()} {
		address := serve(t, l.Server(), ip, echo)
		start := time.Now()
		conn := dial(t, l.Client(), address)
		if took := time.Since(start); took < rtt {
			t.Errorf("%s: connect took %s, want at least %s", ip, took, rtt)
		}
		for range 5 {
			start := time.Now()
			if _, err := conn.Write([]byte("ping")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took < rtt {
				t.Errorf("%s: ping-pong took %s, want at least %s", ip, took, rtt)
			}
		}
		if got := netip.MustParseAddrPort(conn.LocalAddr().String()).Addr(); got != l.Client().Addr4() && got != l.Client().Addr6() {
			t.Errorf("the client's address is %s", got)
		}
	}
}

// transfer sends n random bytes to an echo server and checks all that come back.
func transfer(t *testing.T, conn net.Conn, n int) {
	t.Helper()
	want := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(want)
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(want)
		sent <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(conn)
	if err := errors.Join(err, <-sent); err != nil {
		t.Errorf("%s: %v after %d bytes", conn.RemoteAddr(), err, len(got))
		return
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d of %d bytes came back, or others", conn.RemoteAddr(), len(got), n)
	}
}

func TestEveryByteArrives(t *testing.T) {
	l := openLink(t, Options{RTT: 10 * time.Millisecond})
	for _, ip := range []netip.Addr{l.Server().Addr4(), l.Server().Addr6()} {
		transfer(t, dial(t, l.Client(), serve(t, l.Server(), ip, echo)), 1<<20)
	}
	if s, err := l.Stats(); err != nil || s.ToServer.Lost+s.ToClient.Lost+s.ToServer.Overrun+s.ToClient.Overrun != 0 {
		t.Errorf("stats %+v, %v: want nothing lost", s, err)
	}
}

func TestTransfersSurviveTheChosenLoss(t *testing.T) {
	const share = 0.02
	l := openLink(t, Options{RTT: 4 * time.Millisecond, Loss: share, Seed: lossSeed})
	address := serve(t, l.Server(), l.Server().Addr4(), echo)
	var transfers sync.WaitGroup
	for range 4 {
		conn := dial(t, l.Client(), address)
		transfers.Go(func() { transfer(t, conn, 1<<20) })
	}
	transfers.Wait()
	s, err := l.Stats()
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]Flow{"to server": s.ToServer, "to client": s.ToClient} {
		n := float64(f.Packets)
		sigma := math.Sqrt(n * share * (1 - share))
		if n < 1000 || math.Abs(float64(f.Lost)-n*share) > 3*sigma || f.Overrun != 0 {
			t.Errorf("%s: %+v, want %.0f ± %.0f lost of 1000 packets or more", name, f, n*share, 3*sigma)
		}
	}
}

func TestLossCanBegin(t *testing.T) {
	l := openLink(t, Options{})
	address := serve(t, l.Server(), l.Server().Addr4(), echo)
	dial(t, l.Client(), address)
	l.SetLoss(1)
	defer l.SetLoss(0) // else the first connection's end never reaches the server
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if conn, err := l.Client().DialContext(ctx, "tcp", address); err == nil {
		conn.Close()
		t.Error("connected through a wire that loses everything")
	} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestAClosedLinkRefuses(t *testing.T) {
	l := openLink(t, Options{})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	ran := false
	err := l.Client().Do(func() error { ran = true; return nil })
	if !errors.Is(err, os.ErrClosed) || ran {
		t.Errorf("got %v, ran %v, want os.ErrClosed", err, ran)
	}
	if _, err := l.Client().DialContext(t.Context(), "tcp", "10.77.0.2:1"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("dial: got %v, want os.ErrClosed", err)
	}
}

func TestCloseWithConnectionsUnderWay(t *testing.T) {
	l := openLink(t, Options{RTT: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		conn, err := l.Client().DialContext(ctx, "tcp", "10.77.0.2:1")
		if err == nil {
			conn.Close()
		}
		failed <- err
	}()
	waitFor(t, func() bool { return l.toServer.flow().Packets > 0 })
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-failed; err == nil {
		t.Error("connected through an hour's wire")
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

func TestNothingLeaks(t *testing.T) {
	openLink(t, Options{}).Close()
	threadsBefore, filesBefore, goroutinesBefore := threads(t), leaktest.OpenFiles("self"), runtime.NumGoroutine()
	const rounds = 40
	for range rounds {
		l := openLink(t, Options{})
		for range 5 {
			l.Client().Do(func() error { return nil })
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := threads(t); got > threadsBefore+rounds/2 {
		t.Errorf("%d threads, %d before", got, threadsBefore)
	}
	if got := leaktest.OpenFiles("self"); len(got) > len(filesBefore) {
		t.Errorf("open files %v, before %v", got, filesBefore)
	}
	// A goroutine that has been waited for may still be on its way out; goleak counts exactly, at the end.
	if got := runtime.NumGoroutine(); got > goroutinesBefore+rounds/2 {
		t.Errorf("%d goroutines, %d before", got, goroutinesBefore)
	}
}

func TestBadOptions(t *testing.T) {
	for _, o := range []Options{{RTT: -1}, {Loss: -0.1}, {Loss: 1.1}, {Loss: math.NaN()}} {
		if l, err := Open(o); err == nil {
			l.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
}

func TestTransmitDrops(t *testing.T) {
	const table = "Inter-|   Receive  |  Transmit\n face |bytes packets\n" +
		"    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n" +
		"  wan0: 1 2 3 4 5 6 7 8 9 10 11 4711 13 14 15 16\n"
	if got, err := transmitDrops([]byte(table), "wan0"); got != 4711 || err != nil {
		t.Errorf("got %d, %v, want 4711", got, err)
	}
	if _, err := transmitDrops([]byte(table), "wan1"); err == nil {
		t.Error("found a device that is not there")
	}
}
