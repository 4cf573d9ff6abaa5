package spawn

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lockedBuffer is written by the Output and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// stalled is a log that takes nothing until it is closed.
type stalled chan struct{}

func (s stalled) Write(p []byte) (int, error) { <-s; return len(p), nil }

func output(t *testing.T) (o *Output, stdout, stderr *lockedBuffer) {
	t.Helper()
	stdout, stderr = &lockedBuffer{}, &lockedBuffer{}
	o, err := NewOutput(stdout, stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Started(); o.Close() })
	return o, stdout, stderr
}

// flush is long enough for anything that a test writes.
func flush(t *testing.T, o *Output) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	o.Flush(ctx)
	if ctx.Err() != nil {
		t.Error("it was not flushed")
	}
}

func TestOutputIsPassedOnUnchanged(t *testing.T) {
	o, stdout, stderr := output(t)
	noise := make([]byte, 300<<10) // more than a pipe holds
	rand.Read(noise)
	var both sync.WaitGroup
	both.Go(func() { o.Stdout.Write(noise) })
	both.Go(func() { o.Stderr.Write([]byte("one\x00\r\ntwo")) })
	both.Wait()
	o.Started()
	o.Close()
	if stdout.String() != string(noise) {
		t.Errorf("%d bytes of standard output, %d came through", len(noise), len(stdout.String()))
	}
	if got := stderr.String(); got != "one\x00\r\ntwo" {
		t.Errorf("standard error came through as %q", got)
	}
}

func TestLinesAreTheLastTwenty(t *testing.T) {
	o, _, _ := output(t)
	var want []string
	for i := range 30 {
		stream, line := o.Stdout, fmt.Sprintf("line %d", i)
		if i%2 == 1 {
			stream = o.Stderr
		}
		fmt.Fprintln(stream, line)
		flush(t, o) // so that the order over both is certain
		want = append(want, line)
		if got := o.Lines(); !slices.Equal(got, want[max(0, len(want)-20):]) {
			t.Fatalf("after %d lines: %q", i+1, got)
		}
	}
}

func TestUnfinishedLines(t *testing.T) {
	o, _, _ := output(t)
	for i := range 20 {
		fmt.Fprintln(o.Stdout, i)
	}
	fmt.Fprint(o.Stdout, "begun")
	flush(t, o)
	fmt.Fprint(o.Stderr, "panic: ")
	flush(t, o)
	fmt.Fprint(o.Stderr, "no")
	flush(t, o)
	got := o.Lines()
	if len(got) != 20 || got[17] != "19" || got[18] != "begun" || got[19] != "panic: no" {
		t.Errorf("%q", got)
	}
	fmt.Fprint(o.Stdout, " and done\n")
	flush(t, o)
	if got := o.Lines(); got[18] != "begun and done" || got[19] != "panic: no" {
		t.Errorf("%q", got)
	}
}

// A daemon that never ends a line does not fill the holder's memory.
func TestLongLinesAreCut(t *testing.T) {
	o, _, _ := output(t)
	fmt.Fprint(o.Stdout, strings.Repeat("x", 100_000))
	flush(t, o)
	if got := o.Lines(); len(got) != 1 || got[0] != strings.Repeat("x", 4096) {
		t.Errorf("%d lines, the first of %d bytes", len(got), len(got[0]))
	}
	fmt.Fprint(o.Stdout, "y\nshort\n")
	flush(t, o)
	if got := o.Lines(); len(got) != 2 || got[0] != strings.Repeat("x", 4096) || got[1] != "short" {
		t.Errorf("%d lines, the last is %q", len(got), got[len(got)-1])
	}
}

func TestFlushEndsWithItsContext(t *testing.T) {
	full := make(stalled)
	o, err := NewOutput(full, full)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { o.Started(); close(full); o.Close() }()
	// The first read is stuck in the log; the second write stays in the pipe.
	o.Stdout.Write([]byte("one\n"))
	until(t, "the first line", func() bool { return len(o.Lines()) == 1 })
	o.Stdout.Write([]byte("two\n"))
	ctx, cancel := context.WithCancel(t.Context())
	flushed := make(chan struct{})
	go func() { o.Flush(ctx); close(flushed) }()
	select {
	case <-flushed:
		t.Error("it was flushed with a line in the pipe")
	case <-time.After(20 * time.Millisecond): // too soon a look would only miss a fault
	}
	cancel()
	<-flushed
}

// A log that fails does not stop the daemon.
func TestOutputSurvivesAFailingLog(t *testing.T) {
	closed, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	o, err := NewOutput(closed, closed)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { o.Started(); o.Close() }()
	for i := range 3 {
		fmt.Fprintln(o.Stdout, i)
		flush(t, o)
	}
	if got := o.Lines(); len(got) != 3 {
		t.Errorf("%q", got)
	}
}

// The holder may end before its daemon: what that writes then must not kill it.
func TestDaemonOutlivesItsOutput(t *testing.T) {
	o, stdout, _ := output(t)
	opt := options(t, executable(t), "__writer")
	opt.Stdout, opt.Stderr = o.Stdout, o.Stderr
	p := run(t, opt)
	o.Started()
	until(t, "the daemon", func() bool { return stdout.String() == "ready\n" })
	o.Close()
	if err := p.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	if p.Exit().Failed() {
		t.Errorf("its write ended it: %s", p.Exit())
	}
}

// The daemon's ends block, as programs expect of their standard output, though the
// holder's do not.
func TestDaemonsEndsBlock(t *testing.T) {
	o, _, _ := output(t)
	for _, f := range []*os.File{o.Stdout, o.Stderr} {
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
			if err != nil || flags&unix.O_NONBLOCK != 0 || flags&unix.O_ACCMODE != unix.O_RDWR {
				t.Errorf("its flags are %#x, %v", flags, err)
			}
		})
	}
}
