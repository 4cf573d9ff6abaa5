package main

import (
	"bytes"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// logTime is RFC 3339 with milliseconds.
const logTime = "2006-01-02T15:04:05.000Z07:00"

// Limits of a log that nobody reads.
const (
	linesKept = 1000
	lastLines = time.Second // for them to be written in the end
)

// openLog writes for people on a terminal, and JSON elsewhere. Who logs never waits:
// the service must go on while a terminal is held or a log collector is stuck. Lines
// for which there is no room are lost, and counted. close writes what is left.
func openLog(to *os.File, format, level string) (log zerolog.Logger, close func()) {
	direct := newLog(to, to, format, level)
	w := &lines{to: to, waiting: make(chan line, linesKept), written: make(chan struct{})}
	go w.write(func(lost int64) {
		direct.Warn().Str("event", "log.lost").Int64("lines", lost).Msgf("%d lines of the log are lost: nobody read it", lost)
	})
	return newLog(w, to, format, level), w.close
}

// lines are written by a goroutine of their own. It sleeps while there are none.
type lines struct {
	to      io.Writer
	waiting chan line
	lost    atomic.Int64 // since the last one that there was room for
	written chan struct{}
}

// line may follow others that are lost.
type line struct {
	text []byte // nil for the end
	lost int64
}

// Write never blocks, and never fails.
func (l *lines) Write(text []byte) (int, error) {
	lost := l.lost.Swap(0)
	select {
	case l.waiting <- line{bytes.Clone(text), lost}:
	default:
		l.lost.Add(lost + 1)
	}
	return len(text), nil
}

func (l *lines) write(tell func(lost int64)) {
	defer close(l.written)
	for next := range l.waiting {
		if next.lost > 0 {
			tell(next.lost)
		}
		if next.text == nil {
			return
		}
		l.to.Write(next.text) // nobody can be told if it fails
	}
}

// close waits a moment for what is left; lines that come later are lost.
func (l *lines) close() {
	select {
	case l.waiting <- line{lost: l.lost.Swap(0)}:
	case <-time.After(lastLines):
		return
	}
	select {
	case <-l.written:
	case <-time.After(lastLines):
	}
}

func newLog(w io.Writer, to *os.File, format, level string) zerolog.Logger {
	least := map[string]zerolog.Level{"debug": zerolog.DebugLevel, "info": zerolog.InfoLevel, "warn": zerolog.WarnLevel, "error": zerolog.ErrorLevel}[level]
	if format == "console" || format == "auto" && isTerminal(to) {
		w = console(w, colours(to))
	}
	return stamped(zerolog.New(w).Level(least))
}

// stamped: zerolog's own timestamps have a format that is a variable of the package.
func stamped(l zerolog.Logger) zerolog.Logger {
	return l.Hook(zerolog.HookFunc(func(e *zerolog.Event, _ zerolog.Level, _ string) {
		e.Str(zerolog.TimestampFieldName, time.Now().Format(logTime))
	}))
}

// console keeps what a person reads: the messages are whole sentences, the fields
// are for machines.
func console(w io.Writer, colours bool) zerolog.ConsoleWriter {
	return zerolog.ConsoleWriter{
		Out: w, NoColor: !colours, TimeFormat: "15:04:05.000",
		FormatPrepare: func(fields map[string]any) error {
			for name := range fields {
				switch name {
				case zerolog.TimestampFieldName, zerolog.LevelFieldName, zerolog.MessageFieldName, zerolog.ErrorFieldName:
				default:
					delete(fields, name)
				}
			}
			return nil
		},
	}
}
