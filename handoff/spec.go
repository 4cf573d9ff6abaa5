package handoff

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Network is the kind of socket that a [Spec] asks for.
type Network string

// The networks. TCP and UDP without a digit take both IP families where the address leaves the choice; TCP6 and UDP6 never take
// IPv4 clients.
const (
	TCP       Network = "tcp"
	TCP4      Network = "tcp4"
	TCP6      Network = "tcp6"
	UDP       Network = "udp"
	UDP4      Network = "udp4"
	UDP6      Network = "udp6"
	Unix      Network = "unix"
	UnixGram  Network = "unixgram"
	SeqPacket Network = "seqpacket"
	FIFO      Network = "fifo"
)

func allNetworks() []Network {
	return []Network{TCP, TCP4, TCP6, UDP, UDP4, UDP6, Unix, UnixGram, SeqPacket, FIFO}
}

// IsTCP reports whether n is TCP over any IP family.
func (n Network) IsTCP() bool { return n == TCP || n == TCP4 || n == TCP6 }

// IsUDP reports whether n is UDP over any IP family.
func (n Network) IsUDP() bool { return n == UDP || n == UDP4 || n == UDP6 }

// IsIP reports whether n has addresses of host and port; the other networks have a path.
func (n Network) IsIP() bool { return n.IsTCP() || n.IsUDP() }

// Spec says on what to listen. It is a plain value: comparable, owning nothing, safe to share.
type Spec struct {
	// Name is that of the listener in LISTEN_FDNAMES; "" if none was given.
	Name    string
	Network Network
	// Host is what was written: a literal address, IPv6 without brackets and perhaps with a zone, or a name that is not
	// resolved yet. "" means all addresses. It and Port are for IP networks only.
	Host string
	// Port 0 takes a free one.
	Port uint16
	// Path is an absolute path, or "@" and a name in the abstract namespace. For the networks that are not IP only.
	Path    string
	Options Options
}

// ParseSpec reads one listen spec, [NAME=][NETWORK:]ADDRESS[,OPTION]...
//
// ADDRESS is PORT, :PORT, HOST:PORT or [IPV6]:PORT, an absolute path, or @NAME. PORT is a number or the name of a service;
// an IPv6 zone stands in the brackets, or where systemd has it, behind the port. Without NETWORK a path is a unix socket and
// all else is TCP.
//
// A "=" ends a NAME only if it is the first one and neither ":" nor "," stands before it, and the text does not begin with "/"
// or "@": so "web=/run/a=b" is named, and "/run/a=b", "unix:/run/a=b" and "80,backlog=5" are not. A "," always ends the
// address, thus no path has one.
//
// The error is `bad listen spec "TEXT": ` and the fault.
func ParseSpec(text string) (Spec, error) {
	s, err := parseSpec(text)
	if err != nil {
		return Spec{}, fmt.Errorf("bad listen spec %q: %w", text, err)
	}
	return s, nil
}

// ParseSpecs reads the specs of one service, in which no name and no address may stand twice. Port 0 may.
func ParseSpecs(texts []string) ([]Spec, error) {
	specs := make([]Spec, 0, len(texts))
	names, addresses := map[string]string{}, map[string]string{}
	for _, text := range texts {
		s, err := ParseSpec(text)
		if err != nil {
			return nil, err
		}
		if other, taken := names[s.Name]; taken && s.Name != "" {
			return nil, fmt.Errorf("listen specs %q and %q have the same name; give one another name", other, text)
		}
		if other, taken := addresses[s.key()]; taken && s.key() != "" {
			return nil, fmt.Errorf("listen specs %q and %q have the same address; leave one out", other, text)
		}
		names[s.Name], addresses[s.key()] = text, text
		specs = append(specs, s)
	}
	return specs, nil
}

func parseSpec(text string) (Spec, error) {
	var s Spec
	switch {
	case text == "":
		return s, errors.New("it is empty")
	case strings.ContainsFunc(text, unicode.IsControl):
		return s, errors.New("it has a control character")
	case strings.TrimSpace(text) != text:
		return s, errors.New("it begins or ends with a space")
	}
	rest := text
	if name, after, ok := cutName(text); ok {
		if err := CheckName(name); err != nil {
			return s, err
		}
		s.Name, rest = name, after
	}
	address, options, hasOptions := strings.Cut(rest, ",")
	if err := s.parseNetwork(address); err != nil {
		return s, err
	}
	if !hasOptions {
		return s, nil
	}
	return s, s.parseOptions(options)
}

// cutName splits off the name by the rule that ParseSpec documents.
func cutName(text string) (name, rest string, ok bool) {
	name, rest, ok = strings.Cut(text, "=")
	if !ok || strings.ContainsAny(name, ":,") || isSpecPath(name) {
		return "", text, false
	}
	return name, rest, true
}

func isSpecPath(s string) bool { return strings.HasPrefix(s, "/") || strings.HasPrefix(s, "@") }

// CheckName returns the fault of a name that can't stand in LISTEN_FDNAMES, or nil. The rule is systemd's: 1 to 255 ASCII
// characters, no control characters, no ":". The names "unknown", "stored" and "connection" are allowed, although systemd gives
// them to descriptors that have none.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > 255:
		return fmt.Errorf("the name has %d characters, at most 255 are allowed", len(name))
	case strings.Contains(name, ":"):
		return fmt.Errorf("the name %q has a colon, which separates names in LISTEN_FDNAMES", name)
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r > 0x7f }):
		return fmt.Errorf("the name %q has a character that is not printable ASCII", name)
	}
	return nil
}

// Address is the address alone as people write it, without name, network and options.
func (s Spec) Address() string {
	if !s.Network.IsIP() {
		return s.Path
	}
	return net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port)))
}

// String is the shortest text that ParseSpec reads as s, if s is of ParseSpec's making; options stand in a fixed order.
func (s Spec) String() string {
	var b strings.Builder
	if s.Name != "" {
		b.WriteString(s.Name + "=")
	}
	address := s.Address()
	switch {
	case s.plain():
	case s.Network.IsIP() && s.Host == "":
		b.WriteString(string(s.Network))
	default:
		b.WriteString(string(s.Network) + ":")
	}
	b.WriteString(address)
	s.Options.write(&b)
	return b.String()
}

// plain reports whether the network goes without saying. A host that is called like a network needs one before it.
func (s Spec) plain() bool {
	return s.Network == Unix || s.Network == TCP && !slices.Contains(allNetworks(), Network(s.Host))
}

// key is the same for specs that can't both be bound: the address as the kernel sees it. It is "" for those that always can.
// It knows nothing of names that resolve to the same address.
func (s Spec) key() string {
	switch {
	case !s.Network.IsIP() && s.Path[0] == '@':
		return string(s.Network) + s.Path // abstract names of different types don't meet
	case !s.Network.IsIP():
		return path.Clean(s.Path)
	case s.Port == 0:
		return ""
	}
	host, only6 := s.canonicalHost()
	return fmt.Sprintf("%s %s %t %d", s.Network[:3], host, only6, s.Port)
}

// canonicalHost spells the host in one way, and tells whether a wildcard leaves IPv4 out.
func (s Spec) canonicalHost() (host string, only6 bool) {
	six := s.Network == TCP6 || s.Network == UDP6
	if s.Host == "" && (s.Network == TCP4 || s.Network == UDP4) {
		return "0.0.0.0", false
	}
	if s.Host == "" {
		return "::", six
	}
	a, err := netip.ParseAddr(s.Host)
	if err != nil {
		return strings.ToLower(s.Host), false
	}
	return a.Unmap().String(), six && a.IsUnspecified()
}

// joinWords joins words for people.
func joinWords[T ~string](words []T) string {
	var b strings.Builder
	for i, word := range words {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(word))
	}
	return b.String()
}
