package activation

import (
	"fmt"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready tells the manager that this process can serve, with an optional line of
// text for people. It is nil when nobody wants to know (no NOTIFY_SOCKET).
// [Serve] says it by itself.
func Ready(status ...string) error {
	state := daemon.SdNotifyReady
	if len(status) > 0 {
		state += "\n" + statusLine(strings.Join(status, " "))
	}
	return notify("ready", state)
}

// Stopping tells the manager that this process has begun to stop. It is nil
// when nobody wants to know. [Serve] says it by itself.
func Stopping() error { return notify("stopping", daemon.SdNotifyStopping) }

// Status tells the manager one line of text for people. It is nil when nobody
// wants to know.
func Status(text string) error { return notify("status", statusLine(text)) }

// statusLine keeps text to one line: another would be another assignment.
func statusLine(text string) string {
	return "STATUS=" + strings.NewReplacer("\r\n", " ", "\n", " ").Replace(text)
}

func notify(what, state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("can't say %s to the manager: %w", what, err)
	}
	return nil
}
