package activation

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestEnvironment(t *testing.T) {
	const pid, id = 42, 1000
	tests := []struct {
		name  string
		env   string // space-separated, without the LISTEN_ in front
		n     int
		names []string
		err   string
	}{
		{"nothing", "", 0, nil, ""},
		{"no pid", "FDS=1", 0, nil, ""},
		{"other pid", "FDS=1 PID=43", 0, nil, ""},
		{"other pid, rest broken", "FDS=x PID=43", 0, nil, ""},
		{"bad pid", "FDS=1 PID=me", 0, nil, "LISTEN_PID"},
		{"pid 0", "FDS=1 PID=0", 0, nil, "LISTEN_PID"},
		{"empty pid", "FDS=1 PID=", 0, nil, "LISTEN_PID"},
		{"no fds", "PID=42", 0, nil, ""},
		{"no fds, names", "PID=42 FDNAMES=a", 0, nil, ""},
		{"bad fds", "PID=42 FDS=many", 0, nil, "LISTEN_FDS"},
		{"empty fds", "PID=42 FDS=", 0, nil, "LISTEN_FDS"},
		{"0 fds", "PID=42 FDS=0", 0, nil, "not a number of files"},
		{"negative fds", "PID=42 FDS=-1", -1, nil, "not a number of files"},
		{"overflow", "PID=42 FDS=2147483645", 2147483645, nil, "not a number of files"},
		{"overflow of int", "PID=42 FDS=99999999999999999999", 0, nil, "LISTEN_FDS"},
		{"no names", "PID=42 FDS=2", 2, nil, ""},
		{"names", "PID=42 FDS=2 FDNAMES=a:b", 2, []string{"a", "b"}, ""},
		{"same names", "PID=42 FDS=3 FDNAMES=a:a:b", 3, []string{"a", "a", "b"}, ""},
		{"empty name among", "PID=42 FDS=3 FDNAMES=a::b", 3, []string{"a", "", "b"}, ""},
		{"too few names", "PID=42 FDS=3 FDNAMES=a:b", 3, nil, "2 names for 3 files"},
		{"too many names", "PID=42 FDS=1 FDNAMES=a:b", 1, nil, "2 names for 1 files"},
		{"names empty", "PID=42 FDS=1 FDNAMES=", 1, nil, "0 names for 1 files"},
		{"own pidfd", "PID=42 FDS=1 PIDFDID=1000", 1, nil, ""},
		{"other pidfd", "PID=42 FDS=1 PIDFDID=1001", 0, nil, ""},
		{"bad pidfd", "PID=42 FDS=1 PIDFDID=x", 0, nil, "LISTEN_PIDFDID"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := environment{lookupIn(tt.env), pid, func() (uint64, bool) { return id, true }}
			n, names, err := e.files()
			if fmt.Sprint(err) != "<nil>" && tt.err == "" || tt.err != "" && !strings.Contains(fmt.Sprint(err), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if n != tt.n && tt.err == "" || !reflect.DeepEqual(names, tt.names) {
				t.Errorf("got %d %q, want %d %q", n, names, tt.n, tt.names)
			}
		})
	}
}

// On a kernel without pidfs the id can't be compared, and the pid has to do.
func TestEnvironmentUnknownPidfdID(t *testing.T) {
	e := environment{lookupIn("PID=42 FDS=1 PIDFDID=1001"), 42, func() (uint64, bool) { return 0, false }}
	if n, _, err := e.files(); n != 1 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}

func lookupIn(env string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, v := range strings.Fields(env) {
			if value, ok := strings.CutPrefix("LISTEN_"+v, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}
}
