package main

import (
	"os"
	"time"

	"github.com/rs/zerolog"
)

// logTime is RFC 3339 with milliseconds.
const logTime = "2006-01-02T15:04:05.000Z07:00"

// newLog writes for people on a terminal, and JSON elsewhere.
func newLog(to *os.File, format, level string) zerolog.Logger {
	least := map[string]zerolog.Level{"debug": zerolog.DebugLevel, "info": zerolog.InfoLevel, "warn": zerolog.WarnLevel, "error": zerolog.ErrorLevel}[level]
	if format == "console" || format == "auto" && isTerminal(to) {
		return stamped(zerolog.New(console(to)).Level(least))
	}
	return stamped(zerolog.New(to).Level(least))
}

// stamped: zerolog's own timestamps have a format that is a variable of the package.
func stamped(l zerolog.Logger) zerolog.Logger {
	return l.Hook(zerolog.HookFunc(func(e *zerolog.Event, _ zerolog.Level, _ string) {
		e.Str(zerolog.TimestampFieldName, time.Now().Format(logTime))
	}))
}

// console keeps what a person reads: the messages are whole sentences, the fields
// are for machines.
func console(to *os.File) zerolog.ConsoleWriter {
	return zerolog.ConsoleWriter{
		Out: to, NoColor: !colours(to), TimeFormat: "15:04:05.000",
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
