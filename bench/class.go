package bench

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// Class is how a request failed. Its words are stable: they stand in JSON.
type Class string

const (
	// Refused: nobody listens.
	Refused Class = "refused"
	// ResetBefore: reset before the first byte of the answer.
	ResetBefore Class = "reset-before"
	// ResetAfter: reset within the answer.
	ResetAfter Class = "reset-after"
	// EOF: closed in good order, without an answer.
	EOF Class = "eof"
	// Short: closed in good order within the answer, or an answer that is not
	// HTTP.
	Short Class = "short"
	// Timeout: no complete answer in time; also no connection in time.
	Timeout Class = "timeout"
	// Wrong: a complete answer with the wrong status or bytes, or bytes that
	// nobody asked for.
	Wrong Class = "wrong"
	// Other: no connection for another reason, mostly the client's own: no
	// local port, no descriptor, no route.
	Other Class = "other"
)

// Classes returns all classes in the order in which tables show them.
func Classes() []Class {
	return []Class{Refused, ResetBefore, ResetAfter, EOF, Short, Timeout, Wrong, Other}
}

// fault is a failed request: its class and why.
type fault struct {
	class Class
	err   error
}

func (f *fault) Error() string { return string(f.class) + ": " + f.err.Error() }

func (f *fault) Unwrap() error { return f.err }

// phase is how far a request had come when an error met it.
type phase int

const (
	dialling phase = iota
	waiting        // connected, no byte of the answer yet
	answered       // within the answer
)

// failed makes a fault of what a connection said in the given phase.
func failed(at phase, err error) *fault {
	return &fault{class: classify(at, err), err: err}
}

func classify(at phase, err error) Class {
	switch {
	case isTimeout(err):
		return Timeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case isReset(err) && at == answered:
		return ResetAfter
	case isReset(err):
		return ResetBefore
	case at == dialling:
		return Other
	case at == answered:
		return Short
	case errors.Is(err, io.EOF):
		return EOF
	}
	return Other
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

// isReset knows a reset by all its names: a write after it says EPIPE, a
// net.Pipe has its own word.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, io.ErrClosedPipe)
}
