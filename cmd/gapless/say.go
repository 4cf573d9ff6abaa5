package main

// All words to people go through this file. Its rules:
//
//   - What was asked for goes to standard output, everything else to standard error.
//   - An error says what, why, and what to do. It begins with the name of the
//     service or with "gapless:", once, and is printed once.
//   - Who used a verb wrongly is pointed to its help; nobody else sees the usage.
//   - Colour only on a terminal, and never with NO_COLOR.
//   - The exit code is decided here and nowhere else.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/mattn/go-isatty"

	"github.com/gapless-dev/gapless/reload"
	"github.com/gapless-dev/gapless/reload/control"
)

// Exit codes that no Failure carries.
const (
	codeDone   = 0
	codeFailed = 1
	codeUsage  = 2
)

// terminal is where the words go.
type terminal struct {
	in, out, err *os.File
}

// print fails where what was asked for could not be given: the disk is full.
func (t terminal) print(format string, args ...any) error {
	if _, err := fmt.Fprintf(t.out, format, args...); err != nil {
		return fmt.Errorf("can't print: %w", err)
	}
	return nil
}

func isTerminal(f *os.File) bool { return isatty.IsTerminal(f.Fd()) }

// colours tells whether f gets any (no-color.org; a dumb terminal knows none).
func colours(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(f)
}

// plain is a daemon's line without what a terminal would obey.
func plain(line string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && unicode.IsControl(r) {
			return -1
		}
		return r
	}, line)
}

// usageError is a verb used wrongly.
type usageError struct {
	verb string // as it is typed: "gapless run"
	text string
}

func (e *usageError) Error() string { return e.text }

func wrongUsage(verb, format string, args ...any) error {
	return &usageError{verb: verb, text: fmt.Sprintf(format, args...)}
}

// exitCode ends the command without another word: all has been said.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// report says what went wrong and finds the exit code.
func (t terminal) report(err error) int {
	var code exitCode
	var usage *usageError
	var several *control.AmbiguousError
	var failure *reload.Failure
	switch {
	case err == nil:
		return codeDone
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		fmt.Fprintf(t.err, "gapless: %s\nsee %s --help\n", usage.text, usage.verb)
		return codeUsage
	case errors.As(err, &several):
		fmt.Fprintf(t.err, "gapless: %s\n", several)
		return codeUsage
	case errors.As(err, &failure):
		sayFailure(t.err, failure)
		return failure.Code
	}
	fmt.Fprintf(t.err, "gapless: %s\n", err)
	return codeFailed
}

// sayFailure: the reason, how the candidate ended, and the last it said.
func sayFailure(w io.Writer, f *reload.Failure) {
	text := f.Error()
	if f.Service == "" {
		text = "gapless: " + f.Reason
	}
	fmt.Fprintln(w, text)
	if f.Exit != "" && !strings.Contains(f.Reason, f.Exit) {
		fmt.Fprintf(w, "it ended: %s\n", f.Exit)
	}
	if len(f.Lines) == 0 {
		return
	}
	fmt.Fprintln(w, "the last it said:")
	for _, line := range f.Lines {
		fmt.Fprintf(w, "    %s\n", plain(line))
	}
}
