//go:build !linux

package ready

import (
	"context"
	"net/netip"

	"github.com/gapless-dev/gapless/handoff"
)

// Accepted connects to each address. Whether the connections were taken off the
// queue can't be told here.
func Accepted(ctx context.Context, addrs []netip.AddrPort) error {
	for _, at := range addrs {
		c, err := handoff.Dial(ctx, at)
		if err != nil {
			return err
		}
		c.Close()
	}
	return nil
}
