//go:build !linux

package wan

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"time"
)

// errNoNamespaces is made anew by each call, so that the package has no state.
func errNoNamespaces() error {
	return errors.New("can't open a wide-area link: it needs Linux network namespaces")
}

// Link can't be made on this system.
type Link struct{}

// Side can't be made on this system.
type Side struct{}

// Open returns an error: there are no network namespaces here.
func Open(o Options) (*Link, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return nil, errNoNamespaces()
}

// Close returns nil.
func (l *Link) Close() error { return nil }

// Client returns the zero Side.
func (l *Link) Client() Side { return Side{} }

// Server returns the zero Side.
func (l *Link) Server() Side { return Side{} }

// SetRTT does nothing.
func (l *Link) SetRTT(time.Duration) {}

// SetLoss does nothing.
func (l *Link) SetLoss(float64) {}

// Stats returns an error.
func (l *Link) Stats() (Stats, error) { return Stats{}, errNoNamespaces() }

// Addr4 returns the zero Addr.
func (s Side) Addr4() netip.Addr { return netip.Addr{} }

// Addr6 returns the zero Addr.
func (s Side) Addr6() netip.Addr { return netip.Addr{} }

// Do returns an error and does not run f.
func (s Side) Do(func() error) error { return errNoNamespaces() }

// DialContext returns an error.
func (s Side) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, errNoNamespaces()
}

// Listen returns an error.
func (s Side) Listen(context.Context, string, string) (net.Listener, error) {
	return nil, errNoNamespaces()
}

// Start returns an error and starts nothing.
func (s Side) Start(*exec.Cmd) error { return errNoNamespaces() }
