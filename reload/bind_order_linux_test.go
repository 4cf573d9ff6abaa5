package reload

import (
	"strings"
	"testing"

	"github.com/gapless-dev/gapless/reload/ready"
)

// What daemons do with their sockets, in which order, is served over reloads under load.
func TestOrdersOfBinding(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps string // A is the address, F a file of nobody's
	}{
		{"listen twice", "socket:s,4,reuseaddr bind:s,A listen:s listen:s serve:s"},
		{"bind, close, bind", "socket:s,4,reuseaddr bind:s,A close:s socket:s,4,reuseaddr bind:s,A listen:s serve:s"},
		{"bind, close, bind without SO_REUSEADDR", "socket:s,4 bind:s,A close:s socket:s,4 bind:s,A listen:s serve:s"},
		{"bind, listen, close, bind, listen", "socket:s,4,reuseaddr bind:s,A listen:s close:s socket:s,4,reuseaddr bind:s,A listen:s serve:s"},
		{"bind, listen, close, bind, listen twice", "socket:s,4,reuseaddr bind:s,A listen:s close:s socket:s,4,reuseaddr bind:s,A listen:s close:s socket:s,4,reuseaddr bind:s,A listen:s serve:s"},
		{"two seconds after the start", "sleep:2s on:A"},
		{"MPTCP", "socket:s,4,reuseaddr,mptcp bind:s,A listen:s serve:s"},
		{"blocking, without any option", "socket:s,4 bind:s,A listen:s serve:s"},
		{"workers that inherit", "socket:s,4,reuseaddr bind:s,A listen:s child:serve:s child:serve:s"},
		{"workers that listen", "socket:s,4,reuseaddr bind:s,A child:listen:s|serve:s child:listen:s|serve:s"},
		{"two that are bound before either listens", "socket:s,4,reuseport bind:s,A socket:t,4,reuseport bind:t,A listen:s listen:t serve:s serve:t"},
		{"workers that bind", "child:on:A,reuseport child:on:A,reuseport"},
		{"a worker in a session of its own", "detach:on:A"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr := at(v4, freePort(t))
			f := start(t, binds(t, "", strings.Fields(strings.ReplaceAll(c.steps, "A", addr))...))
			f.until("generation 1", live(1))
			servedBy(t, "1", addr)
			stop := f.loadAt(addr)
			f.mustReload()
			f.mustReload()
			stop()
			servedBy(t, "3", addr)
			if st := f.until("the others to be gone", alone); st.Relayed != 0 {
				t.Errorf("%d were relayed", st.Relayed)
			}
			servedBy(t, "3", addr)
		})
	}
}

// One that binds again finds its address free, though clients wait and it was given our
// own listener for that; one that has it still does not.
func TestBindsAgainWhereClientsWait(t *testing.T) {
	for _, c := range []struct{ name, steps, want string }{
		{"bind, close, bind", "socket:s,4,reuseaddr bind:s,A close:s socket:s,4,reuseaddr bind:s,A listen:s serve:s", "1"},
		{"bind, listen, close, bind", "socket:s,4,reuseaddr bind:s,A listen:s close:s socket:s,4,reuseaddr bind:s,A listen:s serve:s", "1"},
		{"a child's closed one", "child:socket:s,4,reuseaddr|bind:s,A|close:s|note:N socket:s,4,reuseaddr wait:N bind:s,A listen:s serve:s", "1"},
		{"not offered to it", "socket:s,4,reuseaddr bind:s,A close:s socket:s,4,reuseaddr bind:s,A listen:s serve:s", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, dir := at(v4, freePort(t)), t.TempDir()
			steps := "wait:" + dir + "/go " + strings.NewReplacer("A", addr, "N", dir+"/note").Replace(c.steps)
			cfg := binds(t, addr, strings.Fields(steps)...)
			if strings.HasPrefix(c.name, "not") {
				cfg.Delivery = DeliveryBind
			}
			f := start(t, cfg)
			answer := waitingClient(t, addr)
			write(t, dir+"/go", "")
			if got := answer(); got != c.want {
				t.Errorf("answered by %q, want %s", got, c.want)
			}
			servedBy(t, c.want, addr)
			f.until("one to be live", func(s Status) bool { return s.Live() != nil })
		})
	}
}

// Where it has not closed the first, the second is refused as ever.
func TestBindsTwiceWhereClientsWait(t *testing.T) {
	t.Parallel()
	addr, dir := at(v4, freePort(t)), t.TempDir()
	f := start(t, binds(t, addr, "wait:"+dir+"/go", "socket:s,4,reuseaddr", "bind:s,"+addr, "socket:t,4,reuseaddr", "bind:t,"+addr))
	waitingClient(t, addr)
	write(t, dir+"/go", "")
	<-f.done
	if !strings.Contains(f.out.String(), "bind:t,"+addr+": address already in use") {
		t.Error("it was not refused")
	}
}

// An address that is bound long after a generation went live is an endpoint from then on.
func TestBindsWhenItHasBeenLiveForLong(t *testing.T) {
	t.Parallel()
	a, b, dir := at(v4, freePort(t)), at(v4, freePort(t)), t.TempDir()
	f := start(t, binds(t, "", "1/on:"+a, "1/wait:"+dir+"/go", "on:"+b, "2/on:"+a))
	f.until("generation 1", live(1))
	nobodyAt(t, b)
	write(t, dir+"/go", "")
	f.until("both addresses", func(Status) bool { return len(f.Addrs()) == 2 })
	servedBy(t, "1", a, b)
	first, second := f.loadAt(a), f.loadAt(b)
	f.mustReload()
	first()
	second()
	servedBy(t, "2", a, b)
	f.until("generation 1 to be gone", alone)
}

// With --ready listen, that it listens is all.
func TestReadyWhenItListens(t *testing.T) {
	t.Parallel()
	addr, dir := at(v4, freePort(t)), t.TempDir()
	cfg := binds(t, addr, "socket:s,4,reuseaddr", "bind:s,"+addr, "wait:"+dir+"/listen.$GEN", "listen:s", "wait:"+dir+"/serve.$GEN", "serve:s")
	cfg.Ready = ready.Options{Mode: ready.Listen}
	cfg.Delivery = DeliveryBind
	f := start(t, cfg)
	write(t, dir+"/listen.1", "")
	f.until("generation 1", live(1))
	write(t, dir+"/serve.1", "")
	servedBy(t, "1", addr)
	write(t, dir+"/listen.2", "")
	f.mustReload() // though it accepts nothing yet
	answer := waitingClient(t, addr)
	write(t, dir+"/serve.2", "")
	if got := answer(); got != "2" {
		t.Errorf("answered by %q", got)
	}
}
