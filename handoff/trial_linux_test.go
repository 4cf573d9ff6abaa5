package handoff

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTrials(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for name, try := range map[string]func() error{
		"steering v4": func() error { return TrySteering(ctx, TCP4) },
		"sharing":     func() error { return TrySharing(ctx) },
		"hiding":      func() error { return TryHiding(ctx) },
		"following":   func() error { return TryFollowing(ctx) },
		"barrier":     TryBarrier,
	} {
		t.Run(name, func(t *testing.T) {
			if err := try(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("steering v6", func(t *testing.T) {
		if err := TrySteering(ctx, TCP6); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EAFNOSUPPORT) {
			t.Error(err)
		}
	})
	if n, err := TryBacklog(); err != nil || n != somaxconn() {
		t.Errorf("a queue of %d, %v", n, err)
	}
}

// A program that does nothing must not be taken for one that steers.
func TestTrialSeesConnectionsThatStray(t *testing.T) {
	ep := openEndpoint(t, Spec{Network: TCP4, Host: "127.0.0.1"})
	one, err := ep.Open()
	if err != nil {
		t.Fatal(err)
	}
	two, err := ep.Open()
	if err != nil {
		t.Fatal(err)
	}
	ep.steering.(*group).kernel = deafKernel{}
	if err := comesTo(t.Context(), ep, Plan{Live: []*Listener{two}, Probe: []*Listener{one}}); err == nil {
		t.Error("nothing was attached, and nothing strayed")
	}
}

type deafKernel struct{ linux }

func (deafKernel) attach(int, indices) error { return nil }

// Whoever has not the right is told so.
func TestTrialOfLowPort(t *testing.T) {
	start, ok := sysctl("net/ipv4/ip_unprivileged_port_start")
	if !ok || start <= lowPorts {
		t.Skip("needs ports that take a privilege")
	}
	err := withoutCapabilities(func() error {
		_, err := TryLowPort()
		return err
	})
	if !errors.Is(err, unix.EACCES) {
		t.Errorf("without a capability: %v", err)
	}
}

// One that is somebody's says nothing: the next is tried.
func TestTrialOfLowPortPassesOver(t *testing.T) {
	port, err := TryLowPort()
	if errors.Is(err, unix.EACCES) || port == 0 {
		t.Skip("needs the right to bind ports that take a privilege, and such ports")
	}
	taken, err := tcpSocket(unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(taken)
	if err := unix.Bind(taken, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if next, err := TryLowPort(); err != nil || next >= port {
		t.Errorf("beside %d: %d, %v", port, next, err)
	}
}

// withoutCapabilities runs f on a thread that ends with their loss; the main thread does
// not end in Go, and is not taken.
func withoutCapabilities(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- withoutCapabilities(f)
			runtime.UnlockOSThread()
			return
		}
		var none [2]unix.CapUserData
		err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}
