package reload

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A daemon that goes to the background by itself is followed: over reloads under load,
// when it is told to stop, and when it crashes.
func TestDaemonThatGoesToTheBackground(t *testing.T) {
	for _, c := range []struct{ name, steps string }{
		{"binds in the background, after its parent", "detach:note:D/pid|wait:D/gone|on:A exit:0"},
		{"binds in the background, before its parent's end", "detach:note:D/pid|on:A|note:D/served wait:D/served exit:0"},
		{"binds in the parent", "socket:s,4,reuseaddr bind:s,A listen:s detach:note:D/pid|serve:s exit:0"},
		{"binds in the parent, listens in the background", "socket:s,4,reuseaddr bind:s,A detach:note:D/pid|listen:s|serve:s exit:0"},
		{"twice", "detach:detach:note:D/pid;on:A|exit:0 exit:0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, dir := at(v4, freePort(t)), t.TempDir()
			write(t, dir+"/gone", "")
			cfg := binds(t, addr, strings.Fields(strings.NewReplacer("A", addr, "D", dir).Replace(c.steps))...)
			cfg.PIDFile = dir + "/pidfile"
			f := start(t, cfg)
			f.until("generation 1", live(1))
			f.followed(addr, dir, 1)
			servedBy(t, "1", addr)
			stop := f.loadAt(addr)
			f.mustReload()
			f.mustReload()
			stop()
			st := f.followed(addr, dir, 3)
			f.until("the others to be gone", alone)
			servedBy(t, "3", addr)
			for _, g := range st.Generations {
				if g.Number < 3 && !g.Signalled.IsZero() && strings.Contains(g.Exit, "SIGKILL") {
					t.Errorf("generation %d ended with %s", g.Number, g.Exit)
				}
			}
			syscall.Kill(st.Live().PID, syscall.SIGKILL)
			f.until("the crash", f.happened("generation.crashed"))
			if e := f.firstEvent("generation.crashed"); !strings.Contains(e.Text, "SIGKILL") {
				t.Errorf("it is told that %s", e.Text)
			}
			f.until("its replacement", live(4))
			servedBy(t, "4", addr)
		})
	}
}

// followed waits until the main process of the live generation is who serves.
func (f *fixture) followed(addr, dir string, generation int) Status {
	f.t.Helper()
	return f.until("it to be followed", func(s Status) bool {
		if !live(generation)(s) {
			return false
		}
		pid := fmt.Sprint(s.Live().PID)
		_, served, err := ask(addr)
		file, _ := os.ReadFile(dir + "/pidfile")
		return err == nil && served == pid && strings.Contains(f.noted(dir+"/pid"), pid) && strings.TrimSpace(string(file)) == pid
	})
}
