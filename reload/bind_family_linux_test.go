package reload

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/gapless-dev/gapless/reload/state"
)

// family of what a daemon binds, where -l names something else.
type bindCase struct {
	name  string
	spec  string // %d is the port
	steps []string
	// served are addresses at which it is reached, unserved where nobody is to be.
	served, unserved []string
	// waiting is where clients can wait before it has bound anything, but in unserved
	waiting []string
}

const (
	v4, v6, other = "127.0.0.1", "::1", "127.0.0.2"
)

func bindCases() []bindCase {
	own := func(family, addr string, options string) []string {
		return []string{"socket:s," + family + ",reuseaddr" + options, "bind:s," + addr, "listen:s", "serve:s"}
	}
	dual := []string{v4, v6, other}
	return []bindCase{
		{name: "all IPv4", spec: "%d", steps: own("4", "0.0.0.0:%d", ""), served: []string{v4, other}, unserved: []string{v6}, waiting: dual},
		{name: "dual-stack", spec: "%d", steps: own("6", "[::]:%d", ",dual"), served: dual, waiting: dual},
		{name: "IPv6 only", spec: "%d", steps: own("6", "[::]:%d", ",v6only"), served: []string{v6}, unserved: []string{v4}, waiting: dual},
		{name: "both apart", spec: "%d", steps: append([]string{"socket:t,6,reuseaddr,v6only", "bind:t,[::]:%d", "listen:t"}, append(own("4", "0.0.0.0:%d", ""), "serve:t")...), served: dual, waiting: dual},
		{name: "loopback", spec: "%d", steps: own("4", "127.0.0.1:%d", ""), served: []string{v4}, unserved: []string{v6, other}, waiting: dual},
		{name: "mapped loopback", spec: "%d", steps: own("6", "[::ffff:127.0.0.1]:%d", ",dual"), served: []string{v4}, unserved: []string{v6, other}, waiting: dual},
		{name: "IPv6 loopback", spec: "%d", steps: own("6", "[::1]:%d", ""), served: []string{v6}, unserved: []string{v4}, waiting: dual},
		{name: "loopback of all IPv4", spec: "127.0.0.1:%d", steps: own("4", "0.0.0.0:%d", ""), served: []string{v4}, unserved: []string{other}, waiting: []string{v4}},
		{name: "loopback of dual-stack", spec: "127.0.0.1:%d", steps: own("6", "[::]:%d", ",dual"), served: []string{v4}, unserved: []string{other, v6}, waiting: []string{v4}},
		{name: "all IPv4 of loopback", spec: "0.0.0.0:%d", steps: own("4", "127.0.0.1:%d", ""), served: []string{v4}, unserved: []string{other}, waiting: []string{v4, other}},
		{name: "package net", spec: "%d", steps: []string{"golisten::%d"}, served: dual, waiting: dual},
		{name: "package net, loopback", spec: "127.0.0.1:%d", steps: []string{"golisten:127.0.0.1:%d"}, served: []string{v4}, unserved: []string{other}, waiting: []string{v4}},
	}
}

func (c bindCase) at(hosts []string, port int) (all []string) {
	for _, h := range hosts {
		all = append(all, at(h, port))
	}
	return all
}

// config with steps of before in a file that is read first.
func (c bindCase) config(t *testing.T, port int, before ...string) Config {
	steps := before
	for _, s := range c.steps {
		if n := fmt.Sprintf(s, port); n != s+fmt.Sprintf("%%!(EXTRA int=%d)", port) {
			s = n
		}
		steps = append(steps, s)
	}
	return binds(t, fmt.Sprintf(c.spec, port), steps...)
}

// What a daemon binds is met where the spec and it meet; reloads lose nobody there, and
// nobody is let in elsewhere.
func TestDaemonOfAnotherFamilyThanNamed(t *testing.T) {
	for _, c := range bindCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			f := start(t, c.config(t, port))
			f.until("generation 1", live(1))
			servedBy(t, "1", c.at(c.served, port)...)
			nobodyAt(t, c.at(c.unserved, port)...)
			var stops []func() map[string]int
			for _, addr := range c.at(c.served, port) {
				stops = append(stops, f.loadAt(addr))
			}
			f.mustReload()
			f.mustReload()
			for _, stop := range stops {
				stop()
			}
			servedBy(t, "3", c.at(c.served, port)...)
			st := f.until("the others to be gone", alone)
			nobodyAt(t, c.at(c.unserved, port)...)
			if st.Relayed != 0 {
				t.Errorf("%d were relayed", st.Relayed)
			}
		})
	}
}

// Clients that came before the daemon had bound anything are served by it, also those
// that wait where it will not listen.
func TestClientsOfBeforeTheFirstBind(t *testing.T) {
	for _, c := range bindCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			port, dir := freePort(t), t.TempDir()
			f := start(t, c.config(t, port, "wait:"+dir+"/go"))
			var answers []func() string
			for _, addr := range c.at(c.waiting, port) {
				answers = append(answers, waitingClient(t, addr))
			}
			write(t, dir+"/go", "")
			f.until("generation 1", live(1))
			for i, answer := range answers {
				if got := answer(); got != "1" {
					t.Errorf("who waited at %s is answered by %q", c.waiting[i], got)
				}
			}
			servedBy(t, "1", c.at(c.served, port)...)
			f.untilNobodyAt(c.at(c.unserved, port)...)
			f.mustReload()
			servedBy(t, "2", c.at(c.served, port)...)
			nobodyAt(t, c.at(c.unserved, port)...)
		})
	}
}

// Clients that came while there was no daemon, since it had crashed, are served by its
// replacement.
func TestClientsOfACrashedBinder(t *testing.T) {
	for _, c := range bindCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			port, dir := freePort(t), t.TempDir()
			write(t, dir+"/go", "")
			f := start(t, c.config(t, port, "wait:"+dir+"/go"))
			st := f.until("generation 1", live(1))
			servedBy(t, "1", c.at(c.served, port)...)
			f.untilNobodyAt(c.at(c.unserved, port)...)
			f.crashAndBack(st.Live().PID, dir+"/go", c.at(c.served, port))
			servedBy(t, "2", c.at(c.served, port)...)
			f.untilNobodyAt(c.at(c.unserved, port)...)
			f.mustReload()
			servedBy(t, "3", c.at(c.served, port)...)
			f.until("the others to be gone", alone)
			nobodyAt(t, c.at(c.unserved, port)...)
		})
	}
}

// crashAndBack kills live, and lets the next one start when clients wait at all addrs;
// each must be answered by it.
func (f *fixture) crashAndBack(pid int, gate string, addrs []string) {
	f.t.Helper()
	if err := os.Remove(gate); err != nil {
		f.t.Fatal(err)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	f.until("the crash", f.happened("generation.crashed"))
	var answers []func() string
	for _, addr := range addrs {
		answers = append(answers, waitingClient(f.t, addr))
	}
	st := f.until("the next one to run", func(s Status) bool {
		g := s.Generations[len(s.Generations)-1]
		return g.Phase == state.Starting && g.PID != 0
	})
	write(f.t, gate, "")
	next := st.Generations[len(st.Generations)-1].Number
	f.until("it to be live", live(next))
	for i, answer := range answers {
		if got := answer(); got != fmt.Sprint(next) {
			f.t.Errorf("who waited at %s is answered by %q", addrs[i], got)
		}
	}
}

func (f *fixture) untilNobodyAt(addrs ...string) {
	f.t.Helper()
	for _, addr := range addrs {
		f.until("nobody to be at "+addr, func(Status) bool {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
	}
}

// Of a daemon that waits for connections by epoll from before its bind, the socket can't
// be replaced: it would wait for the old one.
func TestEpollBeforeBind(t *testing.T) {
	t.Parallel()
	port, dir := freePort(t), t.TempDir()
	write(t, dir+"/go", "")
	addr := at(v4, port)
	f := start(t, binds(t, addr, "wait:"+dir+"/go", "socket:s,4,reuseaddr", "epoll:s", "bind:s,"+addr, "listen:s", "serve:s"))
	f.until("generation 1", live(1))
	stop := f.loadAt(addr)
	f.mustReload()
	f.mustReload()
	stop()
	st := f.until("the others to be gone", alone)
	f.crashAndBack(st.Live().PID, dir+"/go", []string{addr, addr, addr})
	servedBy(t, "4", addr)
	if st := f.until("generation 4", live(4)); st.Relayed != 3 {
		t.Errorf("%d clients were relayed, want 3", st.Relayed)
	}
}
