package main

import (
	"io"
	"os"
	"strings"
	"testing"
)

// Nobody waits for a log that is not read; what is lost is counted, and the rest
// comes in order once somebody reads.
func TestLogThatNobodyReads(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	log, closeLog := openLog(w, "json", "info")
	const lines = 5000 // more than a pipe and linesKept take
	for n := range lines {
		log.Info().Int("n", n).Msg(strings.Repeat("x", 100))
	}
	read := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		read <- string(b)
	}()
	log.Info().Msg("last") // may be lost as well
	closeLog()
	w.Close()
	all := <-read
	if got := strings.Count(all, "\n"); got < linesKept || got >= lines {
		t.Errorf("%d lines came of %d", got, lines)
	}
	if !strings.HasPrefix(all, `{"level":"info","n":0,`) || !strings.Contains(all, `"event":"log.lost"`) {
		t.Errorf("it begins with %.80q, and tells of no loss: %t", all, strings.Contains(all, "log.lost"))
	}
}

func TestLogIsWrittenAtOnce(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	log, closeLog := openLog(w, "json", "info")
	b := make([]byte, 4096)
	for n := range 10000 {
		log.Info().Int("n", n).Send()
		if _, err := r.Read(b); err != nil { // waits for ever for a line that stays
			t.Fatal(err)
		}
	}
	closeLog()
	w.Close()
}
