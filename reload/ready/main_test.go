package ready

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gapless-dev/gapless/handoff"
)

// TestMain fails the run if a test leaves a goroutine or a descriptor behind.
func TestMain(m *testing.M) {
	before := openFDs()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines leaked:", err)
			code = 1
		}
		if after := openFDs(); len(after) > len(before)+pollerFDs {
			fmt.Fprintf(os.Stderr, "descriptors leaked: %v before, %v after\n", before, after)
			code = 1
		}
	}
	os.Exit(code)
}

// pollerFDs are the runtime's own, epoll and eventfd, made at its first use.
const pollerFDs = 2

func openFDs() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var open []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open = append(open, e.Name()+"="+to)
		}
	}
	return open
}

// endpoint at a port of its own, closed with the test.
func endpoint(t *testing.T) *handoff.Endpoint {
	t.Helper()
	spec, err := handoff.ParseSpec("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ep, err := handoff.Open(t.Context(), spec, handoff.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ep.CloseAll() })
	return ep
}

func listener(t *testing.T, ep *handoff.Endpoint) *handoff.Listener {
	t.Helper()
	l, err := ep.Open()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// long is for what should come; short for what should not, where too soon a look
// would only miss a fault.
func long(t *testing.T) context.Context { return within(t, 20*time.Second) }

func short(t *testing.T) context.Context { return within(t, 50*time.Millisecond) }

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func target(addrs ...string) Target {
	t := Target{Env: os.Environ()}
	for _, a := range addrs {
		t.Addrs = append(t.Addrs, netip.MustParseAddrPort(a))
	}
	return t
}
