package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Units writes unit files (or drop-ins, as "web.service.d/test.conf") and has
// systemd read them.
func (l *Lab) Units(ctx context.Context, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(l.Root(), "etc/systemd/system", name)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
		if err != nil {
			return fmt.Errorf("can't install %s: %w", name, err)
		}
	}
	_, err := l.Run(ctx, "systemctl", "daemon-reload")
	return err
}

// Show are properties of a unit, by name.
func (l *Lab) Show(ctx context.Context, unit string, properties ...string) (map[string]string, error) {
	out, err := l.Run(ctx, "systemctl", "show", unit, "--property", strings.Join(properties, ","))
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		values[name] = value
	}
	return values, nil
}

// Until waits until properties of a unit have the given values.
func (l *Lab) Until(ctx context.Context, unit string, want map[string]string) error {
	var names []string
	for name := range want {
		names = append(names, name)
	}
	for {
		got, err := l.Show(ctx, unit, names...)
		if err != nil {
			return err
		}
		same := true
		for name, value := range want {
			same = same && got[name] == value
		}
		if same {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is %v, and does not become %v: %w", unit, got, want, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Journal is what a unit and systemd said about it, for people.
func (l *Lab) Journal(ctx context.Context, unit string) string {
	if _, err := l.Run(ctx, "journalctl", "--sync"); err != nil {
		return err.Error()
	}
	out, err := l.Run(ctx, "journalctl", "--no-pager", "-o", "short-precise", "-u", unit)
	if err != nil {
		return err.Error()
	}
	return out
}
