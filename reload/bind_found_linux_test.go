package reload

import (
	"slices"
	"strings"
	"testing"

	"github.com/gapless-dev/gapless/reload/state"
)

// Without any address named, each TCP address that a daemon binds is an endpoint, and
// the next generation takes it over.
func TestFindsWhatIsBound(t *testing.T) {
	t.Parallel()
	a, b := at("127.0.0.1", freePort(t)), at("127.0.0.1", freePort(t))
	f := start(t, binds(t, "", "on:"+a, "on:"+b))
	f.until("generation 1", live(1))
	f.until("both addresses", func(Status) bool { return len(f.Addrs()) == 2 }) // it may be live with the first
	servedBy(t, "1", a, b)
	if got := f.addrsNow(); len(got) != 2 || !slices.Contains(got, a) || !slices.Contains(got, b) {
		t.Errorf("its addresses are %s, want %s and %s", got, a, b)
	}
	first, second := f.loadAt(a), f.loadAt(b)
	for range 3 {
		f.mustReload()
	}
	for _, stop := range []func() map[string]int{first, second} {
		if seen := stop(); seen["4"] == 0 && seen["3"] == 0 {
			t.Errorf("answered by %v", seen)
		}
	}
	servedBy(t, "4", a, b)
	st := f.until("the others to be gone", alone)
	if len(st.Endpoints) != 2 || st.Relayed != 0 || st.Live().Delivery != string(DeliveryBind) {
		t.Errorf("endpoints %+v, %d relayed, by %s", st.Endpoints, st.Relayed, st.Live().Delivery)
	}
}

// One that binds one more address has it served from then on.
func TestFindsOneMore(t *testing.T) {
	t.Parallel()
	a, b := at("127.0.0.1", freePort(t)), at("127.0.0.1", freePort(t))
	f := start(t, binds(t, "", "3/on:"+b, "4/on:"+b, "on:"+a))
	f.until("generation 1", live(1))
	f.mustReload()
	nobodyAt(t, b)
	f.mustReload()
	servedBy(t, "3", a, b)
	stop := f.loadAt(b)
	f.mustReload()
	stop()
	servedBy(t, "4", a, b)
	f.until("the others to be gone", alone)
}

// One that binds an address less than live does not take over: its clients would find
// nobody.
func TestOneThatBindsLessFails(t *testing.T) {
	t.Parallel()
	a, b := at("127.0.0.1", freePort(t)), at("127.0.0.1", freePort(t))
	cfg := binds(t, "", "1/on:"+b, "3/on:"+b, "on:"+a)
	cfg.ReadyTimeout = readyTimeout
	f := start(t, cfg)
	f.until("generation 1", live(1))
	_, err := f.reload()
	if why := failure(t, err); why.Code != CodeNotReady || !strings.Contains(why.Reason, "it has not bound "+b) {
		t.Errorf("it failed with %d: %s", why.Code, why.Reason)
	}
	servedBy(t, "1", a, b)
	f.mustReload()
	servedBy(t, "3", a, b)
	if got := f.addrsNow(); len(got) != 2 {
		t.Errorf("its addresses are %s", got)
	}
}

// A candidate that fails leaves nothing at the addresses that only it has bound.
func TestAFailedCandidateLeavesNoEndpoint(t *testing.T) {
	t.Parallel()
	a, b := at("127.0.0.1", freePort(t)), at("127.0.0.1", freePort(t))
	f := start(t, binds(t, "", "2/on:"+b, "2/exit:3", "3/on:"+b, "on:"+a))
	f.until("generation 1", live(1))
	if _, err := f.reload(); failure(t, err).Code != CodeNotReady {
		t.Errorf("it failed with %v", err)
	}
	f.until("generation 2 to be gone", phase(2, state.Failed))
	f.until("its address to be given up", func(Status) bool { return len(f.Addrs()) == 1 })
	nobodyAt(t, b)
	servedBy(t, "1", a)
	f.mustReload()
	servedBy(t, "3", a, b)
}

// What a daemon without an address of its own never binds, it is never ready with.
func TestOneThatBindsNothingIsNotReady(t *testing.T) {
	t.Parallel()
	cfg := binds(t, "")
	cfg.ReadyTimeout = readyTimeout
	f := start(t, cfg)
	<-f.done
	if f.err == nil || !strings.Contains(f.err.Error(), "it has not bound any address") {
		t.Errorf("it ended with %v", f.err)
	}
}

// One that is started after a stop may have other addresses than before: nobody has
// named those, and nobody is served there.
func TestOtherAddressesAfterAStop(t *testing.T) {
	t.Parallel()
	a, b, c := at("127.0.0.1", freePort(t)), at("127.0.0.1", freePort(t)), at("127.0.0.1", freePort(t))
	cfg := binds(t, "", "1/on:"+a, "2/on:"+c, "on:"+b)
	cfg.ReadyTimeout = readyTimeout
	f := start(t, cfg)
	f.until("generation 1", live(1))
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	waits := waitingClient(t, b)
	if _, err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	servedBy(t, "2", b, c)
	if got := waits(); got != "2" {
		t.Errorf("who waited is answered by %q", got)
	}
	nobodyAt(t, a)
	if e := f.firstEvent("listener.given-up"); !strings.Contains(e.Text, "has not bound "+a) {
		t.Errorf("it is told that %s", e.Text)
	}
}
