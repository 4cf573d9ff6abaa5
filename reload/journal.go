package reload

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

const (
	levelDebug = "debug"
	levelInfo  = "info"
	levelWarn  = "warn"
	levelError = "error"
)

// event is what the owner has to tell; level info is the default.
type event struct {
	kind       string
	level      string
	generation int
	text       string
	fields     map[string]any
}

// journal keeps the last events, and those who follow. It is the owner's.
type journal struct {
	seq       uint64
	last      []Event
	followers []chan Event
}

const (
	journalKept  = 512
	followerRoom = 256
)

func (s *Service) emit(e event) {
	if e.level == "" {
		e.level = levelInfo
	}
	s.journal.seq++
	one := Event{Time: time.Now(), Seq: s.journal.seq, Service: s.cfg.Name, Kind: e.kind, Level: e.level,
		Generation: e.generation, Text: e.text, Fields: e.fields}
	s.journal.add(one)
	one.log(s.cfg.Log)
}

// report is an error that nobody waits for.
func (s *Service) report(kind string, generation int, err error) {
	s.emit(event{kind: kind, level: levelError, generation: generation, text: fmt.Sprintf("%s: %v", s.cfg.Name, err)})
}

func (j *journal) add(e Event) {
	j.last = append(j.last, e)
	if len(j.last) > journalKept {
		j.last = slices.Clone(j.last[len(j.last)-journalKept:])
	}
	j.followers = slices.DeleteFunc(j.followers, func(f chan Event) bool {
		select {
		case f <- e:
			return false
		default: // it does not keep up, and the owner waits for nobody
			close(f)
			return true
		}
	})
}

func (j *journal) close() {
	for _, f := range j.followers {
		close(f)
	}
	j.followers = nil
}

func (e Event) log(l zerolog.Logger) {
	level := map[string]zerolog.Level{levelDebug: zerolog.DebugLevel, levelInfo: zerolog.InfoLevel, levelWarn: zerolog.WarnLevel, levelError: zerolog.ErrorLevel}[e.Level]
	line := l.WithLevel(level).Str("service", e.Service).Str("event", e.Kind)
	if e.Generation != 0 {
		line = line.Int("generation", e.Generation)
	}
	for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
		line = line.Interface(k, e.Fields[k])
	}
	line.Msg(e.Text)
}

// Events are the last ones, at most 512, and, if follow is set, a channel of those
// to come. It is closed when the service ends, when ctx does, or when the reader
// falls behind by 256.
func (s *Service) Events(ctx context.Context, follow bool) ([]Event, <-chan Event, error) {
	var last []Event
	var more chan Event
	err := s.ask(ctx, func() {
		last = slices.Clone(s.journal.last)
		if follow {
			more = make(chan Event, followerRoom)
			s.journal.followers = append(s.journal.followers, more)
		}
	})
	if err == nil && follow {
		context.AfterFunc(ctx, func() { s.post(func() { s.journal.drop(more) }) })
	}
	return last, more, err
}

func (j *journal) drop(f chan Event) {
	if i := slices.Index(j.followers, f); i >= 0 {
		close(f)
		j.followers = slices.Delete(j.followers, i, i+1)
	}
}

// String is the one line that people get of a reload.
func (r Result) String() string {
	line := fmt.Sprintf("%s: generation %d live in %s", r.Service, r.Generation, round(r.Took))
	if r.Tried > 0 {
		line += fmt.Sprintf(" and %s as a canary", round(r.Tried))
	}
	switch {
	case r.Share != nil:
		return fmt.Sprintf("%s: generation %d gets %s of new connections", r.Service, r.Generation, percent(*r.Share))
	case r.Back:
		line = fmt.Sprintf("%s: generation %d is live again", r.Service, r.Generation)
	case r.Of != 0:
		line = fmt.Sprintf("%s: generation %d, as generation %d was, live in %s", r.Service, r.Generation, r.Of, round(r.Took))
		if r.Note != "" {
			line += " (" + r.Note + ")"
		}
	case r.Kept != 0:
		return fmt.Sprintf("%s · generation %d is kept for %s", line, r.Kept, r.Probation)
	case r.Stood:
		line += fmt.Sprintf(", stood its probation of %s", r.Probation)
	}
	if len(r.Draining) == 0 {
		return line
	}
	last := r.Draining[len(r.Draining)-1]
	if r.Connections < 0 {
		return fmt.Sprintf("%s · generation %d drains, at most %s", line, last, r.DrainTimeout)
	}
	noun := "connections"
	if r.Connections == 1 {
		noun = "connection"
	}
	return fmt.Sprintf("%s · generation %d drains %d %s, at most %s", line, last, r.Connections, noun, r.DrainTimeout)
}

// fields leave the count out where there is none yet.
func (r Result) fields(pid int) map[string]any {
	all := map[string]any{"took_ms": r.Took.Milliseconds(), "pid": pid}
	if r.Connections >= 0 {
		all["draining_connections"] = r.Connections
	}
	return all
}

func round(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return d.Round(100 * time.Millisecond).String()
}
