package handoff

import (
	"testing"
	"time"
)

// A leave must not cost a client, whoever leaves and however often. The kernel
// itself has a moment in which a SYN can reach the leaver whatever the program
// says; see hide.
func TestLeavesUnderLoad(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			ep := openEndpoint(t, Spec{Network: TCP, Host: host})
			live := startDaemon(t, ep, 1, 1)
			h := &history{}
			h.set(1)
			c := startClients(h, ep.Addr().String())
			leaves := 0
			for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); leaves++ {
				l := mustOpen(t, ep)
				if err := ep.Close(l); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%d leaves", leaves)
			c.end(t)
			live.stop(1)
		})
	}
}
