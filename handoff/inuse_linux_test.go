package handoff

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAddressInUseNamesTheOwner(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ep := openEndpoint(t, spec(t, other.Addr().String()))
	_, err = ep.Open()
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.PID != os.Getpid() || !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("open: %v", err)
	}
	if !strings.Contains(err.Error(), "in use by pid") {
		t.Errorf("it says: %v", err)
	}
}

func TestPrivilegedPort(t *testing.T) {
	err := inUse(&Endpoint{}, unix.EACCES)
	if !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "setcap") {
		t.Errorf("it says: %v", err)
	}
}

// A listener of somebody else's that may take traffic is found, whatever the
// family or the address under which it overlaps; one that can't is not.
func TestForeignListeners(t *testing.T) {
	ep := openEndpoint(t, spec(t, "127.0.0.1:0"))
	mustOpen(t, ep)
	if foreign, err := ep.Foreign(t.Context()); err != nil || len(foreign) != 0 {
		t.Fatalf("alone: %v, %v", foreign, err)
	}
	elsewhere := openEndpoint(t, Spec{Network: TCP, Host: "127.0.0.2", Port: ep.Addr().Port()})
	mustOpen(t, elsewhere)
	if foreign, err := ep.Foreign(t.Context()); err != nil || len(foreign) != 0 {
		t.Fatalf("with one at another address: %v, %v", foreign, err)
	}
	wild := openEndpoint(t, Spec{Network: TCP, Port: ep.Addr().Port()})
	mustOpen(t, wild)
	foreign, err := ep.Foreign(t.Context())
	if err != nil || len(foreign) != 1 || foreign[0].PID != os.Getpid() {
		t.Fatalf("with a wildcard: %v, %v", foreign, err)
	}
	if foreign, err = ep.Foreign(t.Context(), wild.Inodes()...); err != nil || len(foreign) != 0 {
		t.Errorf("with a wildcard of our own: %v, %v", foreign, err)
	}
}
