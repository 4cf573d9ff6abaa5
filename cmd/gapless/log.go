package main

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/rs/zerolog/diode"
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
	lines := diode.NewWriter(unclosed{to}, linesKept, 0, func(missed int) {
		direct.Warn().Str("event", "log.lost").Int("lines", missed).Msgf("%d lines of the log are lost: nobody read it", missed)
	})
	return newLog(lines, to, format, level), func() {
		done := make(chan error, 1)
		go func() { done <- lines.Close() }()
		select {
		case <-done:
		case <-time.After(lastLines):
		}
	}
}

// unclosed is somebody else's to close.
type unclosed struct{ io.Writer }

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
