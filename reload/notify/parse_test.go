package notify

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"READY=1":                        {"READY": "1"},
		"READY=1\n":                      {"READY": "1"},
		"READY=1\nSTATUS=up and running": {"READY": "1", "STATUS": "up and running"},
		"STATUS=a\nSTATUS=b":             {"STATUS": "b"},
		"STATUS=a=b":                     {"STATUS": "a=b"},
		"STATUS=":                        {"STATUS": ""},
		"STATUS=\xff\r":                  {"STATUS": "\xff\r"},
		"":                               {},
		"junk":                           {},
		"=1\n\n=\njunk\nREADY=1":         {"READY": "1"},
		" READY=1":                       {" READY": "1"},
		"X=" + strings.Repeat("x", 4094): {"X": strings.Repeat("x", 4094)},
	} {
		got, ok := parse([]byte(text))
		if diff := cmp.Diff(want, got); diff != "" || !ok {
			t.Errorf("%q: %v (-want +got):\n%s", text, ok, diff)
		}
	}
	for _, text := range []string{"READY=1\x00", "\x00", "X=" + strings.Repeat("x", 4095)} {
		if got, ok := parse([]byte(text)); ok {
			t.Errorf("%.20q was taken as %v", text, got)
		}
	}
}

func TestMessageSays(t *testing.T) {
	for text, want := range map[string][2]bool{
		"READY=1": {true, false}, "READY=0": {}, "READY=": {}, "READY=11": {}, "STOPPING=1": {false, true}, "STOPPING=1\nREADY=1": {true, true}, "": {},
	} {
		fields, _ := parse([]byte(text))
		m := Message{Fields: fields}
		if got := [2]bool{m.Ready(), m.Stopping()}; got != want {
			t.Errorf("%q says ready and stopping %v", text, got)
		}
	}
}

// FuzzParse: what comes out, written down again, means the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=serving\n"))
	f.Add([]byte("=\n==\nA=\nA=b=c"))
	f.Add([]byte("READY=1\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		fields, ok := parse(b)
		if bad := len(b) > 4096 || strings.Contains(string(b), "\x00"); ok == bad {
			t.Fatalf("%q: taken is %v", b, ok)
		}
		var again strings.Builder
		for key, value := range fields {
			if key == "" || strings.ContainsAny(key, "=\n") || strings.Contains(value, "\n") || !strings.Contains("\n"+string(b), "\n"+key+"="+value) {
				t.Fatalf("%q gave %q=%q", b, key, value)
			}
			again.WriteString(key + "=" + value + "\n")
		}
		if back, _ := parse([]byte(again.String())); ok && again.Len() <= 4096 && !maps.Equal(fields, back) {
			t.Fatalf("%q gave %q, and that gave %q", b, fields, back)
		}
	})
}
