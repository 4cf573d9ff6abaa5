package handoff

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// daemon answers every connection with its number and closes it.
type daemon struct {
	id        uint32
	listeners []*Listener
	lns       []net.Listener
	done      sync.WaitGroup
	conns     sync.WaitGroup
}

func startDaemon(t *testing.T, ep *Endpoint, id uint32, workers int) *daemon {
	t.Helper()
	d := &daemon{id: id}
	for range workers {
		l, err := ep.Open()
		if err != nil {
			t.Fatal(err)
		}
		d.listeners = append(d.listeners, l)
		d.serve(t, l)
	}
	return d
}

func (d *daemon) serve(t *testing.T, l *Listener) {
	t.Helper()
	d.accept(inherit(t, l))
}

func (d *daemon) accept(ln net.Listener) {
	d.lns = append(d.lns, ln)
	d.done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			d.conns.Go(func() { d.answer(c) })
		}
	})
}

func (d *daemon) answer(c net.Conn) {
	defer c.Close()
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], d.id)
	c.Write(b[:])
}

// inherit is what a daemon has: a duplicate.
func inherit(t *testing.T, l *Listener) net.Listener {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(l.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// stop is careless: it closes or shuts down what it has, at once.
func (d *daemon) stop(how int) {
	for i, ln := range d.lns {
		if how == 0 {
			shutdown(d.listeners[i].fd)
		}
		ln.Close()
	}
	d.done.Wait()
	d.conns.Wait()
}

// history is who was allowed to answer from when on.
type history struct {
	mu      sync.Mutex
	entries []allowed
}

type allowed struct {
	from time.Time
	ids  []uint32
}

func (h *history) set(ids ...uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entries = append(h.entries, allowed{time.Now(), ids})
}

// during tells whether id was allowed at some moment between the two.
func (h *history) during(id uint32, from, to time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, e := range h.entries {
		ends := to
		if i+1 < len(h.entries) {
			ends = h.entries[i+1].from
		}
		if !e.from.After(to) && !ends.Before(from) && slices.Contains(e.ids, id) {
			return true
		}
	}
	return false
}

// clients connect all the time and check who answers.
type clients struct {
	stop   context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	count  int
	seen   map[uint32]int
	faults []string
}

func startClients(h *history, addrs ...string) *clients {
	ctx, cancel := context.WithCancel(context.Background())
	c := &clients{stop: cancel, seen: map[uint32]int{}}
	for i := range 4 {
		c.wg.Go(func() { c.loop(ctx, h, addrs[i%len(addrs)]) })
	}
	return c
}

func (c *clients) loop(ctx context.Context, h *history, addr string) {
	for ctx.Err() == nil {
		from := time.Now()
		id, err := ask(addr)
		c.mu.Lock()
		c.count++
		switch {
		case err != nil:
			c.faults = append(c.faults, fmt.Sprintf("%s: %v", addr, err))
		case !h.during(id, from, time.Now()):
			c.faults = append(c.faults, fmt.Sprintf("%s: went to %d", addr, id))
		default:
			c.seen[id]++
		}
		c.mu.Unlock()
	}
}

func (c *clients) end(t *testing.T) {
	t.Helper()
	c.stop()
	c.wg.Wait()
	t.Logf("%d connections, %d answerers", c.count, len(c.seen))
	if len(c.faults) > 0 {
		t.Errorf("%d of %d connections failed or went astray, the first: %s", len(c.faults), c.count, strings.Join(c.faults[:min(4, len(c.faults))], "; "))
	}
}

func ask(addr string) (uint32, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	d.SetMultipathTCP(false)
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return readID(c)
}

func readID(c net.Conn) (uint32, error) {
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	var b [4]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(b[:]), nil
}
