package conns

import (
	"io"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func countOf(t testing.TB, d *Diag, q Question) Count {
	t.Helper()
	n, err := d.Count(deadline(t), q)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// exchange some bytes both ways over a connection, so that none are on their way when it returns.
func exchange(t testing.TB, client, served *net.TCPConn) {
	t.Helper()
	for _, way := range [][2]*net.TCPConn{{client, served}, {served, client}} {
		write(t, way[0], "hello")
		if _, err := io.ReadFull(way[1], make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCount(t *testing.T) {
	d := openDiag(t)
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			ln := listen(t, way.network, way.listen, nil)
			me := Question{Ports: []uint16{portOf(ln)}, PIDs: []int{os.Getpid(), 1 << 30}}
			if n := countOf(t, d, me); n != (Count{}) {
				t.Errorf("%+v, want none", n)
			}
			client := connect(t, ln, way.dial)
			first := accept(t, ln)
			connect(t, ln, way.dial)
			second := accept(t, ln)
			connect(t, ln, way.dial) // is never accepted
			if n := countOf(t, d, me); n != (Count{Open: 2, Waiting: 1}) {
				t.Errorf("%+v, want 2 open, 1 waiting, and nothing that was not asked for", n)
			}
			if n := countOf(t, d, Question{Ports: me.Ports}); n != (Count{Waiting: 1}) {
				t.Errorf("without processes %+v, want 1 waiting", n)
			}
			client.CloseWrite() // it waits for an answer
			eventually(t, "CLOSE_WAIT", func() bool {
				return len(dump(t, d, Query{Ports: me.Ports, States: Set(CloseWait)})) == 1
			})
			if n := countOf(t, d, me); n.Open != 2 {
				t.Errorf("%+v with one half closed, want 2 open", n)
			}
			first.Close()
			second.Close() // the kernel ends it, and nobody can be cut off any more
			if n := countOf(t, d, me); n.Open != 0 {
				t.Errorf("%+v after the server has closed, want none open", n)
			}
		})
	}
}

// Idle is one whose last byte was long ago, and is where it belongs.
func TestCountIdle(t *testing.T) {
	d := openDiag(t)
	ln := listen(t, "tcp", "[::]:0", nil)
	q := Question{Ports: []uint16{portOf(ln)}, PIDs: []int{os.Getpid()}, IdleAfter: 100 * time.Millisecond}
	client := connect(t, ln, "127.0.0.1")
	served := accept(t, ln)
	exchange(t, client, served)
	idle := func(n Count) bool { return n.Open == 1 && n.Idle == 1 && n.Busy() == 0 && n.IdleFor > q.IdleAfter }
	eventually(t, "it is idle", func() bool { return idle(countOf(t, d, q)) })

	later := q
	later.IdleAfter = time.Hour
	if n := countOf(t, d, later); n.Idle != 0 || n.IdleFor != 0 || n.Busy() != 1 {
		t.Errorf("%+v, idle for less than an hour", n)
	}
	write(t, client, "12") // nobody reads them
	eventually(t, "their time is over", func() bool {
		c := one(t, d, portOf(ln), Set(Established))
		return c.RQueue == 2 && c.Info.LastDataRecv > 2*q.IdleAfter
	})
	if n := countOf(t, d, q); n.Idle != 0 || n.Busy() != 1 {
		t.Errorf("%+v with unread bytes", n)
	}
	if _, err := io.ReadFull(served, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	if n := countOf(t, d, q); !idle(n) {
		t.Errorf("%+v, want it idle: the bytes were read", n)
	}
}

// An answer that the client does not take is not idle, however long it lasts.
func TestCountUnacknowledged(t *testing.T) {
	d := openDiag(t)
	ln := listen(t, "tcp4", "127.0.0.1:0", nil)
	q := Question{Ports: []uint16{portOf(ln)}, PIDs: []int{os.Getpid()}, IdleAfter: 50 * time.Millisecond}
	connect(t, ln, "127.0.0.1")
	served := accept(t, ln)
	served.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for err := error(nil); err == nil; { // until both sides' buffers are full
		_, err = served.Write(make([]byte, 1<<20))
	}
	eventually(t, "nothing moves", func() bool {
		c := one(t, d, portOf(ln), Set(Established))
		return c.WQueue > 0 && min(c.Info.LastDataRecv, c.Info.LastDataSent) > 2*q.IdleAfter
	})
	if n := countOf(t, d, q); n.Open != 1 || n.Idle != 0 {
		t.Errorf("%+v with bytes on their way", n)
	}
}

// The kernel tells no age, so it is counted from when we have seen it first.
func TestCountAges(t *testing.T) {
	d := openDiag(t)
	ln := listen(t, "tcp4", "127.0.0.1:0", nil)
	var ages Ages
	q := Question{Ports: []uint16{portOf(ln)}, PIDs: []int{os.Getpid()}, Ages: &ages}
	before := time.Now()
	client := connect(t, ln, "127.0.0.1")
	served := accept(t, ln)
	if n := countOf(t, d, q); n.Oldest != 0 {
		t.Errorf("%+v, and it was not known before", n)
	}
	eventually(t, "30 ms", func() bool { return countOf(t, d, q).Oldest >= 30*time.Millisecond })
	connect(t, ln, "127.0.0.1")
	accept(t, ln)
	n := countOf(t, d, q)
	if n.Oldest < 30*time.Millisecond || n.Oldest > time.Since(before) || n.Open != 2 {
		t.Errorf("%+v beside a new one; the old one was opened %s ago", n, time.Since(before))
	}
	served.Close()
	client.Close()
	if after := countOf(t, d, q); after.Oldest >= n.Oldest || after.Open != 1 || len(ages.since) != 1 {
		t.Errorf("%+v without the old one, %d are remembered", after, len(ages.since))
	}
	// Silence is as good as memory.
	fresh := Question{Ports: q.Ports, PIDs: q.PIDs, IdleAfter: time.Hour}
	eventually(t, "20 ms of silence", func() bool { return countOf(t, d, fresh).Oldest >= 20*time.Millisecond })
}

// Two processes listen at one address: each has its own connections, and what waits may be any one's.
func TestCountTellsProcessesApart(t *testing.T) {
	d := openDiag(t)
	a := serve(t, "127.0.0.1:0", nil, nil)
	b := serve(t, a.addr, nil, nil)
	const n = 40
	for range n {
		dial(t, "tcp4", a.addr)
	}
	of := func(pids ...int) int { return countOf(t, d, Question{Ports: []uint16{a.port()}, PIDs: pids}).Open }
	eventually(t, "all are accepted", func() bool { return of(a.pid, b.pid) == n })
	if one, other := of(a.pid), of(b.pid); one+other != n || one == 0 || other == 0 {
		t.Errorf("%d and %d of %d", one, other, n)
	}
}

// A cgroup has the connections of the listeners that were made in it.
func TestCountByCgroup(t *testing.T) {
	d := openDiag(t)
	id, inside := inNewCgroup(t)
	a := serve(t, "127.0.0.1:0", nil, inside)
	b := serve(t, a.addr, nil, nil)
	const n = 40
	for range n {
		dial(t, "tcp4", a.addr)
	}
	ports := []uint16{a.port()}
	var one int
	eventually(t, "all are accepted", func() bool {
		one = countOf(t, d, Question{Ports: ports, PIDs: []int{a.pid}}).Open
		return one+countOf(t, d, Question{Ports: ports, PIDs: []int{b.pid}}).Open == n
	})
	for name, q := range map[string]Question{
		"the port":  {Ports: ports},
		"many":      {Ports: append(make([]uint16, maxPorts), ports...)},
		"two":       {Ports: append([]uint16{1}, ports...)},
		"all ports": {},
	} {
		q.Cgroup, q.IdleAfter = id, time.Hour
		if got := countOf(t, d, q); got.Open != one || one == 0 || got.Waiting != 0 {
			t.Errorf("%s: %+v, the process has %d of %d", name, got, one, n)
		}
	}
	if got := countOf(t, d, Question{Ports: []uint16{1}, Cgroup: id}); got.Open != 0 {
		t.Errorf("another port: %+v", got)
	}
	if got := countOf(t, d, Question{Ports: ports, Cgroup: id, Listeners: a.listeners(t), PIDs: []int{b.pid}}); got.Open != one {
		t.Errorf("with its own listeners: %+v, the process has %d of %d", got, one, n)
	}
	both := append(a.listeners(t), b.listeners(t)...)
	if got := countOf(t, d, Question{Ports: ports, Cgroup: id, Listeners: both, PIDs: []int{a.pid, b.pid}}); got.Open != n {
		t.Errorf("with a listener of another cgroup: %+v, want %d by the processes", got, n)
	}
	// One that is stopped accepts no more: who waits is of its cgroup.
	unix.Kill(a.pid, unix.SIGSTOP)
	defer unix.Kill(a.pid, unix.SIGCONT)
	eventually(t, "one to wait there", func() bool {
		dial(t, "tcp4", a.addr)
		return countOf(t, d, Question{Ports: ports, Cgroup: id}).Waiting > 0
	})
}

// Connections to a listener that was handed in are of the cgroup that it comes from: there they can't be counted so.
func TestCountByCgroupNeedsAListenerOfItsOwn(t *testing.T) {
	d := openDiag(t)
	id, inside := inNewCgroup(t)
	ln := listen(t, "tcp4", "127.0.0.1:0", nil)
	s := serve(t, ln.Addr().String(), ln, inside)
	dial(t, "tcp4", s.addr)
	ports := []uint16{portOf(ln)}
	eventually(t, "it is accepted", func() bool { return countOf(t, d, Question{Ports: ports, PIDs: []int{s.pid}}).Open == 1 })
	if n := countOf(t, d, Question{Ports: ports, Cgroup: id}); n != (Count{}) {
		t.Errorf("%+v of the cgroup that it was handed to", n)
	}
}

// BenchmarkCount is of CPU time, which is what it costs others: at most 30 ms by cgroup and 150 ms by process for 20,000.
func BenchmarkCount(b *testing.B) {
	needFiles(b)
	d := openDiag(b)
	for _, crowd := range []int{1000, 20_000} {
		b.Run(strconv.Itoa(crowd), func(b *testing.B) {
			id, inside := inNewCgroup(b)
			s := serve(b, "127.0.0.1:0", nil, inside)
			other := serve(b, s.addr, nil, inside)
			for range 2 {
				crowded(b, s, crowd/2)
			}
			by := Question{Ports: []uint16{s.port()}, PIDs: []int{s.pid, other.pid}}
			eventually(b, "all are accepted", func() bool { return countOf(b, d, by).Open == crowd })
			var ages Ages
			for _, way := range []struct {
				name string
				q    Question
			}{
				{"cgroup", Question{Cgroup: id}},
				{"cgroup and idle", Question{Cgroup: id, IdleAfter: time.Second}},
				{"process", Question{PIDs: by.PIDs}},
				{"process, idle and age", Question{PIDs: by.PIDs, IdleAfter: time.Second, Ages: &ages}},
			} {
				way.q.Ports = by.Ports
				b.Run(way.name, func(b *testing.B) { countCPU(b, d, way.q, crowd) })
			}
		})
	}
}

func countCPU(b *testing.B, d *Diag, q Question, want int) {
	before := cpuTime(b)
	n := 0
	for b.Loop() {
		n++
		if got := countOf(b, d, q); got.Open != want {
			b.Fatalf("%+v, want %d", got, want)
		}
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(n)/1e6, "cpu-ms/op")
}
