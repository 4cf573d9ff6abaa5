package handoff

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// parseNetwork reads [NETWORK:]ADDRESS.
func (s *Spec) parseNetwork(text string) error {
	if text == "" {
		return errors.New("the address is missing")
	}
	prefix, address, ok := strings.Cut(text, ":")
	switch {
	case ok && slices.Contains(allNetworks(), Network(prefix)):
		s.Network = Network(prefix)
	case isSpecPath(text):
		s.Network, address = Unix, text
	default:
		s.Network, address = TCP, text
	}
	if s.Network.IsIP() {
		return s.parseIP(address)
	}
	return s.parsePath(address)
}

// A unix address has 108 bytes, of which one is the NUL at the end of a path or at the beginning of an abstract name.
const (
	maxUnixPath = 107
	maxFIFOPath = 4095
)

func (s *Spec) parsePath(p string) error {
	limit := maxUnixPath
	if s.Network == FIFO {
		limit = maxFIFOPath
	}
	switch {
	case p == "":
		return fmt.Errorf("the path after %q is missing", string(s.Network)+":")
	case p == "@":
		return errors.New("the abstract name after \"@\" is empty")
	case p[0] == '@' && s.Network == FIFO:
		return errors.New("a FIFO has a path, no abstract name")
	case !isSpecPath(p):
		return fmt.Errorf("the path %q is not absolute", p)
	case p[0] == '/' && strings.HasSuffix(p, "/"):
		return fmt.Errorf("the path %q is that of a directory", p)
	case len(strings.TrimPrefix(p, "@")) > limit:
		return fmt.Errorf("the path has %d bytes, the kernel allows %d", len(p), limit)
	}
	s.Path = p
	return nil
}

// parseIP reads PORT, :PORT, HOST:PORT, [IPV6]:PORT or [IPV6]:PORT%ZONE.
func (s *Spec) parseIP(address string) error {
	if err := checkShape(address); err != nil {
		return err
	}
	host, port, err := s.splitHostPort(address)
	if err != nil {
		return err
	}
	if s.Port, err = s.parsePort(port); err != nil {
		return err
	}
	s.Host = host
	return s.checkHost()
}

// checkShape finds what people write that is no address at all, to say more than "bad port".
func checkShape(address string) error {
	before, after, colon := strings.Cut(address, ":")
	switch {
	case strings.HasPrefix(address, "//") || strings.Contains(address, "://"):
		return errors.New("it is written like a URL; write HOST:PORT")
	case colon && isSpecPath(after):
		return fmt.Errorf("unknown network %q; there are %s", before, joinWords(allNetworks()))
	case isSpecPath(address):
		return fmt.Errorf("it is a path; write unix:%s", address)
	case strings.Contains(address, "/"):
		return errors.New("a path must be absolute, and a port has no slash")
	case strings.HasPrefix(address, "["):
		return nil
	case strings.Count(address, ":") > 1:
		return errColons(address)
	}
	return nil
}

// errColons is about an address with several colons; the last part may have been meant to be the port.
func errColons(address string) error {
	i := strings.LastIndexByte(address, ':')
	host, port := address[:i], address[i+1:]
	if _, err := netip.ParseAddr(host); err == nil {
		return fmt.Errorf("an IPv6 address stands in brackets: [%s]:%s", host, port)
	}
	if _, err := netip.ParseAddr(address); err == nil {
		return fmt.Errorf("an IPv6 address stands in brackets, before the port: [%s]:PORT", address)
	}
	return errors.New("it has too many colons; write HOST:PORT, or [IPV6]:PORT")
}

func (s *Spec) splitHostPort(address string) (host, port string, err error) {
	if strings.HasPrefix(address, "[") {
		return splitBrackets(address)
	}
	host, port, ok := strings.Cut(address, ":")
	switch {
	case ok && port == "":
		return "", "", errors.New("the port after \":\" is missing")
	case ok:
		return host, port, nil
	case address == "" || s.isPort(address):
		return "", address, nil
	}
	return "", "", fmt.Errorf("%q has no port; write %s:PORT", address, address)
}

// isPort tells a lone port from a lone host.
func (s *Spec) isPort(text string) bool {
	if strings.ContainsAny(text[:1], "+-0123456789") && !strings.Contains(text, ".") {
		return true // or meant to be: parsePort has the better words
	}
	_, err := s.parsePort(text)
	return err == nil
}

// splitBrackets reads [IPV6]:PORT and systemd's [IPV6]:PORT%ZONE.
func splitBrackets(address string) (host, port string, err error) {
	host, rest, ok := strings.Cut(address[1:], "]")
	if !ok {
		return "", "", errors.New("the bracket is not closed")
	}
	port, ok = strings.CutPrefix(rest, ":")
	if !ok || port == "" {
		return "", "", fmt.Errorf("the port is missing; write [%s]:PORT", host)
	}
	if number, zone, ok := strings.Cut(port, "%"); ok {
		host, port = host+"%"+zone, number
	}
	if a, err := netip.ParseAddr(host); err != nil || !a.Is6() {
		return "", "", fmt.Errorf("%q is not an IPv6 address; brackets are for those only", host)
	} else if strings.ContainsAny(a.Zone(), "% []") {
		return "", "", fmt.Errorf("%q is no interface; write [IPV6%%INTERFACE]:PORT", a.Zone())
	}
	return host, port, nil
}

func (s *Spec) parsePort(text string) (uint16, error) {
	switch {
	case text == "":
		return 0, errors.New("the port is missing")
	case isDigits(text):
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("port %s is above 65535", text)
		}
		return uint16(n), nil
	case !isHostName(text):
		return 0, fmt.Errorf("port %q is not a number", text)
	}
	protocol := "tcp"
	if s.Network.IsUDP() {
		protocol = "udp"
	}
	n, err := net.LookupPort(protocol, text)
	if err != nil {
		return 0, fmt.Errorf("port %q is neither a number nor the name of a %s service", text, protocol)
	}
	return uint16(n), nil
}

// isDigits: only digits, so neither a sign nor an underscore.
func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// checkHost returns the fault of a host that can't be bound on the network.
func (s *Spec) checkHost() error {
	if s.Host == "" {
		return nil
	}
	if s.Host == "*" {
		return fmt.Errorf("for all addresses write :%d", s.Port)
	}
	a, err := netip.ParseAddr(s.Host)
	if err != nil {
		return checkHostName(s.Host)
	}
	v4, v6 := a.Unmap().Is4(), a.Is6() && !a.Is4In6()
	switch {
	case !v4 && (s.Network == TCP4 || s.Network == UDP4):
		return fmt.Errorf("%s is not an IPv4 address", s.Host)
	case !v6 && (s.Network == TCP6 || s.Network == UDP6):
		return fmt.Errorf("%s is not an IPv6 address", s.Host)
	}
	return nil
}

func checkHostName(host string) error {
	if strings.Trim(host, "0123456789.") == "" {
		return fmt.Errorf("%s is not an IPv4 address", host)
	}
	if !isHostName(host) || len(host) > 253 {
		return fmt.Errorf("%q is neither an address nor the name of a host", host)
	}
	return nil
}

// isHostName: letters, digits, and what else names of hosts and services are made of.
func isHostName(s string) bool {
	return s != "" && s[0] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r)
	})
}
