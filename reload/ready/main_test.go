package ready

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// TestMain fails the run if a test leaves a goroutine or a descriptor behind.
func TestMain(m *testing.M) { os.Exit(leaktest.Run(m, 0)) }

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
