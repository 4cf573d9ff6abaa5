// Package bench puts a server under load and says what its clients saw.
//
// It is the judge of every promise that gapless makes, so it never hides a
// failure: nothing is retried, no connection is silently replaced, an answer
// is checked to its last byte, and latency at a constant rate counts from the
// moment at which a request should have been sent, not from the one at which
// it could be sent at last. For this reason it does not use [http.Transport]
// (which repeats a request when a kept-alive connection dies under it) nor
// dials names (whose second address would cover for the first).
//
// A [Load] describes the clients, [Load.Run] lets them loose and returns a
// [Result]; [Merge] and [Table] bring several together. Run owns every
// goroutine and connection it makes: when it returns all have ended. Its
// context ends the sending, never an exchange: what is in flight gets its
// answer or its timeout, and counts. When the server dies, that is counted
// too, by [Class]; only a Load that makes no sense is an error.
//
// Facts about HTTP: RFC 9112 (message framing 6, persistence 9.3, 9.6).
package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Kind is how the clients of a load behave.
type Kind string

const (
	// PerRequest makes a new TCP connection for each request, with
	// "Connection: close".
	PerRequest Kind = "per-request"
	// KeepAlive sends its requests over kept-alive HTTP/1.1 connections.
	KeepAlive Kind = "keep-alive"
	// Slow is PerRequest to a path that takes its time, many in flight.
	Slow Kind = "slow"
	// Pause is PerRequest with a wait between the connection and the first
	// byte of the request, as of a client behind a slow line.
	Pause Kind = "pause"
	// Echo keeps TCP connections, sends blocks of random size and content and
	// wants each byte back.
	Echo Kind = "echo"
)

// kinds are all kinds, with the number of clients each starts with.
func kinds() map[Kind]int {
	return map[Kind]int{PerRequest: 8, KeepAlive: 8, Slow: 32, Pause: 32, Echo: 8}
}

// Load describes clients and what they send. The zero value of each field is
// its default; Kind, an address (Addr or Dial) and an end (Duration or Max)
// must be given. A Load is a value: Run works on a copy, so that one Load may
// be run several times, also at once, as far as its functions allow.
type Load struct {
	// Name stands in tables; the Kind by default.
	Name string
	Kind Kind
	// Addr is host:port. A name is looked up once, when the run begins, and
	// its first IPv4 address (else its first address) is used throughout. It
	// is also the Host of HTTP requests.
	Addr string
	// Path is requested with GET: "/", and "/slow" for Slow.
	Path string

	// Rate is in requests a second: request i is sent i/Rate after the start,
	// whatever became of those before it. 0 is a closed loop: each client
	// sends when it has its answer.
	Rate float64
	// Clients is the number of clients from the start: 8, or 32 for Slow and
	// Pause. For KeepAlive and Echo at a constant rate the requests go round
	// these connections in turn.
	Clients int
	// MaxClients bounds the clients that a constant rate may add when all are
	// busy: 1024 by default, but Clients for Echo. Each may hold one
	// connection. When it is reached requests are late, which their latency
	// and RateMet show.
	MaxClients int
	// Think is how long a client of a closed loop waits between an answer and
	// its next request: none, but 20 ms for Echo.
	Think time.Duration
	// Pause is what clients of kind Pause wait before their first byte:
	// 200 ms. Latency does not include it.
	Pause time.Duration

	// Timeout bounds each request from dialling to the last byte (Pause comes
	// on top): 5 s.
	Timeout time.Duration
	// Tolerance is how late a request may be started and still count as on
	// schedule: 250 ms.
	Tolerance time.Duration
	// Duration is how long requests are sent; the last ones may end later, by
	// Timeout at most.
	Duration time.Duration
	// Max bounds the number of requests.
	Max int

	// Dial replaces the dialling of Addr, for example by one from another
	// network namespace. The load owns and closes the connection. It must
	// return when ctx ends.
	Dial func(ctx context.Context) (net.Conn, error)
	// LocalAddrs are source addresses to take in turn, so that the local
	// ports of one do not run out: 127.0.0.2, 127.0.0.3 ... on the loopback.
	// Not together with Dial.
	LocalAddrs []netip.Addr

	// Identify says which generation gave an answer ("" if unknown). By
	// default the header X-Generation does. It is called by many goroutines
	// at once; body is at most the first MiB.
	Identify func(header http.Header, body []byte) string
	// Check says what is wrong with a complete answer, which then counts as
	// [Wrong]. By default every status but 200 is. It is called by many
	// goroutines at once; body is at most the first MiB.
	Check func(status int, header http.Header, body []byte) error
	// Speak does one exchange in another protocol than HTTP on a new connection,
	// whose deadline is set and which it leaves open, and says which generation
	// answered ("" if unknown). An error that is not the connection's own counts
	// as [Wrong]. It is called by many goroutines at once. Not for KeepAlive and
	// Echo.
	Speak func(conn net.Conn) (generation string, err error)
	// Progress is called about every ProgressEvery (1 s) during the run, from
	// one goroutine; it must return soon.
	Progress      func(Snapshot)
	ProgressEvery time.Duration
}

// FirstWord is an Identify for servers that begin their body with the name of
// their generation or their pid.
func FirstWord(_ http.Header, body []byte) string {
	words := strings.Fields(string(body[:min(len(body), 128)]))
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

func generationHeader(header http.Header, _ []byte) string {
	return header.Get("X-Generation")
}

func wantOK(status int, _ http.Header, _ []byte) error {
	if status != http.StatusOK {
		return fmt.Errorf("status %d", status)
	}
	return nil
}

// prepare checks the load, fills the defaults in and returns the one address
// that it dials (none with a Dial of its own).
func (l *Load) prepare(ctx context.Context) (netip.AddrPort, error) {
	if err := l.check(); err != nil {
		return netip.AddrPort{}, err
	}
	l.fillCounts()
	l.fillTimes()
	l.fillFuncs()
	if l.Dial != nil {
		return netip.AddrPort{}, nil
	}
	to, err := resolve(ctx, l.Addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, from := range l.LocalAddrs {
		if from.Is4() != to.Addr().Is4() {
			return netip.AddrPort{}, fmt.Errorf("can't dial %s from %s: not of one family", to, from)
		}
	}
	return to, nil
}

func (l *Load) check() error {
	_, known := kinds()[l.Kind]
	switch {
	case !known:
		return fmt.Errorf("can't run load %q: unknown kind %q", l.Name, l.Kind)
	case l.Duration <= 0 && l.Max <= 0:
		return fmt.Errorf("can't run load %q: neither duration nor maximum given", l.Name)
	case l.Addr == "" && l.Dial == nil:
		return fmt.Errorf("can't run load %q: no address", l.Name)
	case l.Rate < 0 || l.Clients < 0 || l.MaxClients < 0 || l.Max < 0 || l.Duration < 0:
		return fmt.Errorf("can't run load %q: a number is negative", l.Name)
	case l.Dial != nil && len(l.LocalAddrs) > 0:
		return fmt.Errorf("can't run load %q: local addresses and a dial function", l.Name)
	case l.Speak != nil && (l.Kind == KeepAlive || l.Kind == Echo):
		return fmt.Errorf("can't run load %q: %s with words of its own", l.Name, l.Kind)
	case strings.ContainsAny(l.Path, " \r\n"):
		return fmt.Errorf("can't run load %q: bad path %q", l.Name, l.Path)
	}
	return nil
}

func (l *Load) fillCounts() {
	if l.Clients == 0 {
		l.Clients = kinds()[l.Kind]
	}
	if l.MaxClients == 0 && l.Kind != Echo {
		l.MaxClients = 1024
	}
	l.MaxClients = max(l.MaxClients, l.Clients)
	if l.Rate > 0 && l.Duration > 0 {
		// Those due before the end: 0.29 s at 100/s are 29, however floats round.
		due := int(math.Ceil(l.Rate*l.Duration.Seconds() - 1e-6))
		if l.Max == 0 || due < l.Max {
			l.Max = max(due, 1)
		}
	}
}

func (l *Load) fillTimes() {
	setDefault(&l.Pause, 200*time.Millisecond)
	setDefault(&l.Timeout, 5*time.Second)
	setDefault(&l.Tolerance, 250*time.Millisecond)
	setDefault(&l.ProgressEvery, time.Second)
	if l.Kind == Echo {
		setDefault(&l.Think, 20*time.Millisecond)
	}
	if l.Kind != Pause {
		l.Pause = 0
	}
}

func (l *Load) fillFuncs() {
	if l.Name == "" {
		l.Name = string(l.Kind)
	}
	if l.Path == "" {
		l.Path = "/"
		if l.Kind == Slow {
			l.Path = "/slow"
		}
	}
	if l.Identify == nil {
		l.Identify = generationHeader
	}
	if l.Check == nil {
		l.Check = wantOK
	}
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// resolve looks a host up once, so that no dial can fall back from one address
// to another unseen.
func resolve(ctx context.Context, addr string) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("can't read address %q: %w", addr, err)
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("can't look up port %q: %w", service, err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err == nil && len(ips) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("can't look up %q: %w", host, err)
	}
	ip := ips[0].Unmap()
	for i := len(ips) - 1; i >= 0; i-- {
		if four := ips[i].Unmap(); four.Is4() {
			ip = four
		}
	}
	return netip.AddrPortFrom(ip, uint16(port)), nil
}
