package conns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readSize is the most that the kernel puts in one part of a dump; it makes full use of a buffer of this size.
	readSize = 32 << 10
	// pollStep is how often a wait looks at its context. The kernel answers while it is asked, so there hardly is a wait.
	pollStep = 20 * time.Millisecond
)

// Diag asks the kernel about sockets. It holds one descriptor and is not for concurrent use.
type Diag struct {
	fd  int
	seq uint32
	buf []byte
	// unfinished is the answer that a call gave up on. The kernel refuses a second dump (EBUSY) before the first is read.
	unfinished *answer
}

// Open makes a Diag for the network namespace of the calling thread; it stays with that namespace. The caller must Close it.
func Open() (*Diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("can't open sock_diag: %w", err)
	}
	return &Diag{fd: fd, buf: make([]byte, readSize)}, nil
}

// Close gives the descriptor back. Calls after it fail; a second Close does nothing.
func (d *Diag) Close() error {
	if d.fd < 0 {
		return nil
	}
	fd := d.fd
	d.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("can't close sock_diag: %w", err)
	}
	return nil
}

// ask sends a request and reads all of its answer into a.
func (d *Diag) ask(ctx context.Context, request []byte, a *answer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for d.unfinished != nil {
		// What is wrong with that answer was said to the call that asked for it; here it is only read to its end.
		if _, err := d.step(ctx); err != nil {
			return err
		}
	}
	if err := d.send(request); err != nil {
		return err
	}
	d.unfinished = a
	for d.unfinished != nil {
		fault, err := d.step(ctx)
		if err := cmp.Or(fault, err); err != nil {
			return err
		}
	}
	return nil
}

// step reads the next part of the unfinished answer. It returns the fault that the part reports or has, and the error of
// reading it.
func (d *Diag) step(ctx context.Context) (fault, err error) {
	b, err := d.read(ctx)
	if err != nil {
		return nil, err
	}
	fault = d.unfinished.take(b)
	if d.unfinished.done {
		d.unfinished = nil
	}
	return fault, nil
}

func (d *Diag) send(request []byte) error {
	for {
		err := unix.Sendto(d.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// read returns the next datagram that came from the kernel, valid until the next read.
func (d *Diag) read(ctx context.Context) ([]byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, from, err := unix.Recvfrom(d.fd, d.buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			if err := d.wait(ctx); err != nil {
				return nil, err
			}
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case n > len(d.buf):
			return nil, fmt.Errorf("a netlink message of %d bytes was cut off", n)
		case fromKernel(from):
			return d.buf[:n], nil
		}
	}
}

// fromKernel: any process with CAP_NET_ADMIN can write to a netlink socket; only the kernel has port 0.
func fromKernel(from unix.Sockaddr) bool {
	nl, ok := from.(*unix.SockaddrNetlink)
	return ok && nl.Pid == 0
}

// wait returns when there is something to read, and at the latest after pollStep or at the deadline.
func (d *Diag) wait(ctx context.Context) error {
	step := pollStep
	if deadline, ok := ctx.Deadline(); ok {
		step = min(step, max(time.Until(deadline), 0))
	}
	fds := []unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, int((step+time.Millisecond-1)/time.Millisecond))
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}
