package activation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// Listen is for a daemon with one listener: it returns the one that was
// inherited, and without one it listens on address as [net.Listen] does. The
// caller closes it.
//
// The only inherited listener is taken whatever it is called, since managers
// name it after the unit, the address or not at all. More than one is an error,
// because the others could not be had any more: use [Inherit]. As Inherit does,
// Listen removes the variables from the environment, so that a second call
// always listens by itself.
func Listen(name, network, address string) (net.Listener, error) {
	in, err := Inherit()
	if err != nil {
		return nil, err
	}
	names := in.Names()
	switch len(names) {
	case 0:
		return in.Listen(name, network, address)
	case 1:
		return in.Listeners()[0], nil
	}
	err = fmt.Errorf("can't choose listener %q: %d are inherited (%s), call Inherit and take each by name",
		name, len(names), strings.Join(names, ", "))
	return nil, errors.Join(err, in.Close())
}

// listen opens a plain listener. Not an MPTCP one, which is Go's default on
// Linux: the kernel can't steer between those of two generations.
func listen(network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		return nil, fmt.Errorf("can't listen on %s: %w", address, err)
	}
	return ln, nil
}
