package ready

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseMode(t *testing.T) {
	for text, want := range map[string]Options{
		"auto": {Mode: Auto}, "notify": {Mode: Notify}, "accept": {Mode: Accept}, "probe": {Mode: Probe},
		"delay:2s": {Mode: Delay, Delay: 2 * time.Second}, "delay:0s": {Mode: Delay}, "delay:1m30s": {Mode: Delay, Delay: 90 * time.Second},
	} {
		if got, err := ParseMode(text); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "Auto", "delay", "delay:", "delay:2", "delay:-1s", "delay:x", "alive", "auto "} {
		if got, err := ParseMode(text); err == nil || !strings.Contains(err.Error(), `bad --ready "`+text+`": want `) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
}

func TestParseCheck(t *testing.T) {
	for text, want := range map[string]Check{
		"tcp": {Kind: "tcp"}, "http:/": {Kind: "http", Path: "/"}, "http:/a?b=c:d": {Kind: "http", Path: "/a?b=c:d"},
		"exec:true": {Kind: "exec", Command: "true"}, "exec:test -e a:b": {Kind: "exec", Command: "test -e a:b"},
	} {
		if got, err := ParseCheck(text); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "tcp:", "tcp:80", "http", "http:", "http:healthz", "exec", "exec:", "exec: ", "grpc:/"} {
		if got, err := ParseCheck(text); err == nil || !strings.Contains(err.Error(), `bad --probe "`+text+`": want `) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
}

func TestParseStatuses(t *testing.T) {
	for text, want := range map[string][]StatusRange{
		"200": {{200, 200}}, "200-399": {{200, 399}}, "200,204": {{200, 200}, {204, 204}}, "100-599": {{100, 599}}, "200-204,401": {{200, 204}, {401, 401}},
	} {
		if got, err := ParseStatuses(text); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "99", "600", "399-200", "200-", "-200", "200,", "2xx", "200-300-400", "200 204"} {
		if got, err := ParseStatuses(text); err == nil || !strings.Contains(err.Error(), `bad --probe-status "`+text+`": want `) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
}

// FuzzParse: what is taken is within its bounds.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"auto", "delay:2s", "tcp", "http:/healthz", "exec:curl -f", "200-399", "200,204", "200-"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if o, err := ParseMode(text); err == nil && (o.Delay < 0 || o.Mode == "" || o.Delay > 0 && o.Mode != Delay) {
			t.Errorf("%q is %+v", text, o)
		}
		if c, err := ParseCheck(text); err == nil && c.Kind == "http" && !strings.HasPrefix(c.Path, "/") {
			t.Errorf("%q is %+v", text, c)
		}
		ranges, err := ParseStatuses(text)
		if err == nil && len(ranges) == 0 {
			t.Errorf("%q is nothing", text)
		}
		for _, r := range ranges {
			if r.From < 100 || r.To > 599 || r.From > r.To {
				t.Errorf("%q is %+v", text, r)
			}
		}
	})
}
