package main

import (
	"strings"
	"testing"

	"github.com/gapless-dev/gapless/reload"
)

// What a daemon said must not move the cursor of whoever asked for the reload.
func TestFailureIsPlain(t *testing.T) {
	var out strings.Builder
	sayFailure(&out, &reload.Failure{Service: "web", Generation: 2, Reason: "is bad", Lines: []string{"\x1b[31mred\x1b[0m\tand \x07\u009bmore\r", "grün"}})
	if got, want := out.String(), "web: generation 2 is bad\nthe last it said:\n    [31mred[0m\tand more\n    grün\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
