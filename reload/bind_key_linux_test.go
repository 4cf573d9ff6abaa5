package reload

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// A socket of another key than live's would be a group of its own and take its clients
// before it is ready. Of the same family, it is given one of live's.
func TestCandidateOfAnotherKeyGetsOurs(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	f := start(t, binds(t, fmt.Sprint(port), "1/on:"+at("0.0.0.0", port), "2/on:"+at(v4, port), "3/on:"+at("0.0.0.0", port)))
	f.until("generation 1", live(1))
	here, there := f.loadAt(at(v4, port)), f.loadAt(at(other, port))
	f.mustReload()
	servedBy(t, "2", at(v4, port), at(other, port))
	f.mustReload()
	here()
	there()
	servedBy(t, "3", at(v4, port), at(other, port))
	f.until("the others to be gone", alone)
}

// Of another family, there is nothing to give: the reload is refused, and with
// --strategy replace it works, since nobody is live then.
func TestCandidateOfAnotherFamily(t *testing.T) {
	for _, strategy := range []Strategy{StrategyOverlap, StrategyReplace} {
		t.Run(string(strategy), func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			cfg := binds(t, fmt.Sprint(port), "1/on:"+at("0.0.0.0", port), "2/on:"+at("::", port)+",dual")
			cfg.Strategy = strategy
			f := start(t, cfg)
			f.until("generation 1", live(1))
			stop := f.loadAt(at(v4, port))
			_, err := f.reload()
			if strategy == StrategyReplace {
				stop()
				if err != nil {
					t.Fatal(err)
				}
				servedBy(t, "2", at(v4, port), at(v6, port))
				return
			}
			why := failure(t, err)
			for _, want := range []string{"[::]:", "(IPv4 and IPv6)", "0.0.0.0:", "--strategy replace"} {
				if why.Code != CodeNotReady || !strings.Contains(why.Reason, want) {
					t.Errorf("it failed with %d, without %q: %s", why.Code, want, why.Reason)
				}
			}
			if seen := stop(); len(seen) != 1 {
				t.Errorf("answered by %v", seen)
			}
			servedBy(t, "1", at(v4, port))
			nobodyAt(t, at(v6, port))
		})
	}
}

// A daemon that listens on another port than was given is told of at once, and why it is
// not ready, too.
func TestAnotherPortThanGiven(t *testing.T) {
	t.Parallel()
	given, taken := freePort(t), freePort(t)
	cfg := binds(t, fmt.Sprint(given), "on:"+at("0.0.0.0", taken))
	cfg.ReadyTimeout = readyTimeout
	f := start(t, cfg)
	want := fmt.Sprintf("it listens on :%d; use -l %d", taken, taken)
	f.until("the word", f.happened("listener.elsewhere"))
	if e := f.firstEvent("listener.elsewhere"); !strings.Contains(e.Text, want) {
		t.Errorf("it is told that %s, want %s", e.Text, want)
	}
	<-f.done
	if f.err == nil || !strings.Contains(f.err.Error(), want) {
		t.Errorf("it ended with %v, want %s", f.err, want)
	}
}

// Sockets that are no endpoint's are bound as without gapless: ports of the kernel's
// choice, UDP, unix sockets.
func TestOtherBindsGoOnUntouched(t *testing.T) {
	t.Parallel()
	port, dir := freePort(t), t.TempDir()
	said := dir + "/said"
	f := start(t, binds(t, at(v4, port),
		"socket:any,4", "trybind:any,127.0.0.1:0,"+said, "trylisten:any,"+said,
		"socket:udp,d", "trybind:udp,"+at(v4, port)+","+said,
		"socket:unix,u", "trybind:unix,"+dir+"/sock,"+said, "trylisten:unix,"+said,
		"on:"+at(v4, port)))
	f.until("generation 1", live(1))
	text, _ := os.ReadFile(said)
	if got := strings.Fields(string(text)); len(got) != 5 || strings.Join(got, "") != strings.Repeat("<nil>", 5) {
		t.Errorf("it was told %q", text)
	}
	if got := f.addrsNow(); len(got) != 1 {
		t.Errorf("its addresses are %s", got)
	}
	f.mustReload()
	servedBy(t, "2", at(v4, port))
	f.until("generation 1 to be gone", alone)
}

// In a network namespace of its own a daemon is none of this one's.
func TestAnotherNetworkNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a network namespace takes root")
	}
	t.Parallel()
	port, dir := freePort(t), t.TempDir()
	cfg := binds(t, at(v4, port), "unshare:net", "socket:s,4", "trybind:s,"+at("0.0.0.0", port)+","+dir+"/said", "trylisten:s,"+dir+"/said", "note:"+dir+"/pid")
	cfg.ReadyTimeout = readyTimeout
	f := start(t, cfg)
	f.until("it to have bound", func(Status) bool { _, err := os.Stat(dir + "/pid"); return err == nil })
	if text, _ := os.ReadFile(dir + "/said"); string(text) != "<nil>\n<nil>\n" {
		t.Errorf("it was told %q", text)
	}
	if g := f.until("generation 1", func(s Status) bool { return s.Generation(1) != nil }).Generation(1); g.Delivery == string(DeliveryBind) {
		t.Error("it counts as one that binds here")
	}
	<-f.done
	if f.err == nil || !strings.Contains(f.err.Error(), "has not accepted") {
		t.Errorf("it ended with %v", f.err)
	}
}

// The same address once more by the same generation is an error as without gapless,
// unless both have said SO_REUSEPORT.
func TestTheSameAddressTwice(t *testing.T) {
	for _, c := range []struct {
		name, first, second string
		want                string
	}{
		{"neither shares", "", "", unix.EADDRINUSE.Error()},
		{"the first shares", ",reuseport", "", unix.EADDRINUSE.Error()},
		{"the second shares", "", ",reuseport", unix.EADDRINUSE.Error()},
		{"both share", ",reuseport", ",reuseport", "<nil>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			port, dir := freePort(t), t.TempDir()
			addr := at(v4, port)
			f := start(t, binds(t, addr,
				"socket:s,4,reuseaddr"+c.first, "bind:s,"+addr, "listen:s",
				"socket:t,4,reuseaddr"+c.second, "trybind:t,"+addr+","+dir+"/said.$GEN",
				"serve:s"))
			f.until("generation 1", live(1))
			f.mustReload()
			for _, g := range []string{"1", "2"} {
				if text, _ := os.ReadFile(dir + "/said." + g); strings.TrimSpace(string(text)) != c.want {
					t.Errorf("generation %s was told %q, want %s", g, text, c.want)
				}
			}
			servedBy(t, "2", addr)
		})
	}
}

// A daemon for one device only has its own group.
func TestBoundToADevice(t *testing.T) {
	t.Parallel()
	addr := at(v4, freePort(t))
	f := start(t, binds(t, addr, "on:"+addr+",lo"))
	f.until("generation 1", live(1))
	stop := f.loadAt(addr)
	f.mustReload()
	f.mustReload()
	stop()
	servedBy(t, "3", addr)
	f.until("the others to be gone", alone)
}

// One without privilege gets a port below 1024, and keeps it over reloads.
func TestLowPortOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("another user takes root")
	}
	t.Parallel()
	addr := at("127.0.0.81", 81)
	cfg := binds(t, addr, "on:"+addr)
	cfg.User, cfg.Command[0] = "nobody", forEveryone(t, cfg.Command[0])
	f := start(t, cfg)
	st := f.until("generation 1", live(1))
	if got := statusOf(t, st.Live().PID, "NoNewPrivs"); got != "0" {
		t.Errorf("no_new_privs is %s", got)
	}
	stop := f.loadAt(addr)
	f.mustReload()
	f.mustReload()
	stop()
	servedBy(t, "3", addr)
	if uid := statusOf(t, f.until("the others to be gone", alone).Live().PID, "Uid"); !strings.HasPrefix(uid, "65534\t") {
		t.Errorf("its uid is %s", uid)
	}
}

// forEveryone is a copy of the program that any user may run: those that `go test` and
// t.TempDir make are in directories of their user alone.
func forEveryone(t *testing.T, program string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gapless-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "program")
	copyFile(t, program, path)
	return path
}

// statusOf is a line of /proc/PID/status.
func statusOf(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("pid %d has no %s", pid, name)
	return ""
}

// With --delivery listen-fds there is no filter, with bind nothing in the environment,
// and with both, both.
func TestWhatEachDeliveryGives(t *testing.T) {
	for _, c := range []struct {
		delivery Delivery
		fds      string
		filters  string
	}{{DeliveryListenFDs, "1", "0"}, {DeliveryAuto, "1", "2"}, {DeliveryBind, "", "2"}} {
		t.Run(string(c.delivery), func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			cfg := binds(t, at(v4, port), "on:"+at(v4, port))
			if c.delivery == DeliveryListenFDs {
				cfg.Command = []string{os.Args[0], "daemon"}
			}
			cfg.Delivery = c.delivery
			f := start(t, cfg)
			st := f.until("generation 1", live(1))
			if got := f.get("/env/LISTEN_FDS"); got != c.fds {
				t.Errorf("LISTEN_FDS is %q, want %q", got, c.fds)
			}
			if got := statusOf(t, st.Live().PID, "Seccomp"); got != c.filters {
				t.Errorf("seccomp mode is %s, want %s", got, c.filters)
			}
			if got := statusOf(t, st.Live().PID, "NoNewPrivs"); os.Geteuid() == 0 && got != "0" {
				t.Errorf("no_new_privs is %s", got)
			}
		})
	}
}

// What a daemon has open is what it was promised: its listeners, and nothing of the
// holder's.
func TestNothingElseIsPassedOn(t *testing.T) {
	for _, delivery := range []Delivery{DeliveryAuto, DeliveryBind} {
		t.Run(string(delivery), func(t *testing.T) {
			t.Parallel()
			port, dir := freePort(t), t.TempDir()
			cfg := binds(t, at(v4, port), "fds:"+dir+"/fds", "on:"+at(v4, port))
			cfg.Delivery = delivery
			f := start(t, cfg)
			f.until("generation 1", live(1))
			text, _ := os.ReadFile(dir + "/fds")
			want := 3 // standard input, output, error
			if delivery == DeliveryAuto {
				want++
			}
			lines := strings.Fields(string(text))
			if len(lines) != want || strings.Contains(string(text), "seccomp") {
				t.Errorf("it has %q, want %d", lines, want)
			}
		})
	}
}

// After many reloads the holder has open what it had after the first, and no more
// goroutines. Programs are pinned beside all that, which may take a while, and are two at
// most with what waits to be closed; a leak would be one of each reload.
func TestReloadsOfABinderLeaveNothing(t *testing.T) {
	const reloads, spare = 50, 5
	addr := at(v4, freePort(t))
	f := start(t, binds(t, "", "on:"+addr))
	f.until("generation 1", live(1))
	f.mustReload()
	f.until("generation 1 to be gone", alone)
	servedBy(t, "2", addr)
	before, open := f.fdsAndGoroutines(), leaktest.OpenFiles("self")
	for range reloads {
		f.mustReload()
	}
	f.until("the others to be gone", alone)
	defer func() {
		if t.Failed() {
			t.Logf("now are open %v, and before %v", leaktest.OpenFiles("self"), open)
		}
	}()
	f.until(fmt.Sprintf("descriptors and goroutines to be as before, %d", before), func(Status) bool {
		now := f.fdsAndGoroutines()
		return now[0] <= before[0]+spare && now[1] <= before[1]+spare
	})
	servedBy(t, fmt.Sprint(2+reloads), addr)
}
