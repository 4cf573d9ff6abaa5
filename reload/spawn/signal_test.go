package spawn

import (
	"syscall"
	"testing"
)

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "SIGTERM": syscall.SIGTERM, "term": syscall.SIGTERM, "sigquit": syscall.SIGQUIT,
		"15": syscall.SIGTERM, "1": syscall.SIGHUP, "64": 64, "USR2": syscall.SIGUSR2,
	} {
		if got, err := ParseSignal(text); got != want || err != nil {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "SIG", "0", "-1", "65", "NOSUCH", "TERM ", "15x", "SIGSIGTERM"} {
		if got, err := ParseSignal(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestSignalName(t *testing.T) {
	for s, want := range map[syscall.Signal]string{syscall.SIGTERM: "SIGTERM", syscall.SIGKILL: "SIGKILL", 40: "signal 40"} {
		if got := SignalName(s); got != want {
			t.Errorf("%d is %q", int(s), got)
		}
	}
}
