package spawn

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	linesKept = 20
	lineMost  = 4096 // of one line
)

// Output passes on what a daemon says, unchanged and at once, to the holder's own
// standard output and error, and keeps its last lines for whoever must be told why
// it failed. The daemon's ends are opened for reading too, so that a daemon that
// outlives its holder is not killed by SIGPIPE, and a later holder can read on
// through /proc/PID/fd.
type Output struct {
	// Stdout and Stderr are for [Options]; Close them in the holder once the
	// process has been started ([Output.Started]).
	Stdout, Stderr *os.File

	readers []*os.File
	copying sync.WaitGroup

	mu    sync.Mutex
	lines [][]byte
	part  map[*os.File][]byte // of a line, per stream
}

// NewOutput makes the two pipes.
func NewOutput(stdout, stderr io.Writer) (*Output, error) {
	o := &Output{part: map[*os.File][]byte{}}
	for _, stream := range []struct {
		daemon **os.File
		to     io.Writer
	}{{&o.Stdout, stdout}, {&o.Stderr, stderr}} {
		r, w, err := outputPipe()
		if err != nil {
			o.Started()
			o.Close()
			return nil, fmt.Errorf("can't make a pipe for the daemon's output: %w", err)
		}
		*stream.daemon = w
		o.readers = append(o.readers, r)
		o.copying.Go(func() { o.pass(r, stream.to) })
	}
	return o, nil
}

// Started closes the daemon's ends in the holder.
func (o *Output) Started() {
	for _, f := range []*os.File{o.Stdout, o.Stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// closeTimeout is for passing on what is left in two pipes.
const closeTimeout = time.Second

// Close stops reading and waits for the copying to end. What is still in the
// pipes is passed on first, but not to somebody who does not take it: the holder's
// own output may be a pipe that nobody reads, and ending must not wait for that.
func (o *Output) Close() {
	for _, r := range o.readers {
		r.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	}
	copied := make(chan struct{})
	go func() {
		o.copying.Wait()
		for _, r := range o.readers {
			r.Close()
		}
		close(copied)
	}()
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-copied:
	case <-t.C:
	}
}

func (o *Output) pass(r *os.File, to io.Writer) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := r.Read(buffer)
		o.take(r, to, buffer[:n])
		if err != nil {
			break
		}
	}
	// What is in the pipe at the end, and no more: a stray may go on for ever.
	r.SetReadDeadline(time.Time{})
	for left := unread(r); left > 0; {
		n, err := r.Read(buffer[:min(left, len(buffer))])
		o.take(r, to, buffer[:n])
		if err != nil {
			return
		}
		left -= n
	}
}

func (o *Output) take(r *os.File, to io.Writer, b []byte) {
	if len(b) > 0 {
		o.keep(r, b)
		to.Write(b) // a log that can't be written must not stop the daemon
	}
}

func (o *Output) keep(r *os.File, b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		o.part[r] = cut(append(o.part[r], line...))
		if !whole {
			return
		}
		o.lines = append(o.lines, o.part[r])
		if len(o.lines) > linesKept {
			o.lines = o.lines[1:]
		}
		o.part[r], b = nil, rest
	}
}

func cut(line []byte) []byte { return line[:min(len(line), lineMost)] }

// Lines are the last whole lines that the daemon said, and parts of a line that it
// did not end; at most 20.
func (o *Output) Lines() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []string
	for _, l := range o.lines {
		all = append(all, string(l))
	}
	for _, r := range o.readers {
		if len(o.part[r]) > 0 {
			all = append(all, string(o.part[r]))
		}
	}
	return all[max(0, len(all)-linesKept):]
}

// Flush returns when what a daemon that has ended wrote has been passed on, or
// when ctx ends. Twice empty, because what was just read may not be kept yet.
func (o *Output) Flush(ctx context.Context) {
	for empty := 0; empty < 2; {
		if empty++; !o.empty() {
			empty = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func (o *Output) empty() bool {
	for _, r := range o.readers {
		if unread(r) > 0 {
			return false
		}
	}
	return true
}
