package handoff

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

func TestParseSpec(t *testing.T) {
	for _, tc := range []struct {
		text  string
		want  Spec
		canon string // "" if it is text itself
	}{
		{"8080", Spec{Network: TCP, Port: 8080}, ":8080"},
		{":8080", Spec{Network: TCP, Port: 8080}, ""},
		{":08080", Spec{Network: TCP, Port: 8080}, ":8080"},
		{"0", Spec{Network: TCP}, ":0"},
		{"65535", Spec{Network: TCP, Port: 65535}, ":65535"},
		{"http", Spec{Network: TCP, Port: 80}, ":80"},
		{"localhost:https", Spec{Network: TCP, Host: "localhost", Port: 443}, "localhost:443"},
		{"127.0.0.1:8080", Spec{Network: TCP, Host: "127.0.0.1", Port: 8080}, ""},
		{"0.0.0.0:80", Spec{Network: TCP, Host: "0.0.0.0", Port: 80}, ""},
		{"[::1]:8080", Spec{Network: TCP, Host: "::1", Port: 8080}, ""},
		{"[::]:80", Spec{Network: TCP, Host: "::", Port: 80}, ""},
		{"[::ffff:127.0.0.1]:80", Spec{Network: TCP, Host: "::ffff:127.0.0.1", Port: 80}, ""},
		{"[fe80::1%eth0]:80", Spec{Network: TCP, Host: "fe80::1%eth0", Port: 80}, ""},
		{"[fe80::1]:80%eth0", Spec{Network: TCP, Host: "fe80::1%eth0", Port: 80}, "[fe80::1%eth0]:80"},
		{"[::1]:1234%lo", Spec{Network: TCP, Host: "::1%lo", Port: 1234}, "[::1%lo]:1234"},
		{"my-host.example:8080", Spec{Network: TCP, Host: "my-host.example", Port: 8080}, ""},
		{"tcp:8080", Spec{Network: TCP, Port: 8080}, ":8080"},
		{"tcp::8080", Spec{Network: TCP, Port: 8080}, ":8080"},
		{"tcp:[::1]:8080", Spec{Network: TCP, Host: "::1", Port: 8080}, "[::1]:8080"},
		{"tcp:udp:8080", Spec{Network: TCP, Host: "udp", Port: 8080}, ""},
		{"tcp4:8080", Spec{Network: TCP4, Port: 8080}, ""},
		{"tcp4:127.0.0.1:8080", Spec{Network: TCP4, Host: "127.0.0.1", Port: 8080}, ""},
		{"tcp6::8080", Spec{Network: TCP6, Port: 8080}, "tcp6:8080"},
		{"tcp6:[::1]:8080", Spec{Network: TCP6, Host: "::1", Port: 8080}, ""},
		{"udp:53", Spec{Network: UDP, Port: 53}, ""},
		{"udp::53", Spec{Network: UDP, Port: 53}, "udp:53"},
		{"udp:domain", Spec{Network: UDP, Port: 53}, "udp:53"},
		{"udp4:127.0.0.1:53", Spec{Network: UDP4, Host: "127.0.0.1", Port: 53}, ""},
		{"udp6:[::1]:53", Spec{Network: UDP6, Host: "::1", Port: 53}, ""},
		{"/run/x.sock", Spec{Network: Unix, Path: "/run/x.sock"}, ""},
		{"unix:/run/x.sock", Spec{Network: Unix, Path: "/run/x.sock"}, "/run/x.sock"},
		{"/run/my app:1@x", Spec{Network: Unix, Path: "/run/my app:1@x"}, ""},
		{"@abstract", Spec{Network: Unix, Path: "@abstract"}, ""},
		{"@a:b/", Spec{Network: Unix, Path: "@a:b/"}, ""},
		{"unix:@abstract", Spec{Network: Unix, Path: "@abstract"}, "@abstract"},
		{"unixgram:/run/log", Spec{Network: UnixGram, Path: "/run/log"}, ""},
		{"unixgram:@log", Spec{Network: UnixGram, Path: "@log"}, ""},
		{"seqpacket:/run/s", Spec{Network: SeqPacket, Path: "/run/s"}, ""},
		{"fifo:/run/f", Spec{Network: FIFO, Path: "/run/f"}, ""},

		{"web=8080", Spec{Name: "web", Network: TCP, Port: 8080}, "web=:8080"},
		{"my web/1@2=udp:53", Spec{Name: "my web/1@2", Network: UDP, Port: 53}, ""},
		{"tcp=unix:/run/x", Spec{Name: "tcp", Network: Unix, Path: "/run/x"}, "tcp=/run/x"},
		{"unknown=1", Spec{Name: "unknown", Network: TCP, Port: 1}, "unknown=:1"},
		{"web=/run/a=b", Spec{Name: "web", Network: Unix, Path: "/run/a=b"}, ""},
		{"/run/a=b", Spec{Network: Unix, Path: "/run/a=b"}, ""},
		{"@a=b", Spec{Network: Unix, Path: "@a=b"}, ""},
		{"fifo:/run/a=b", Spec{Network: FIFO, Path: "/run/a=b"}, ""},
		{"80,backlog=5", Spec{Network: TCP, Port: 80, Options: Options{Backlog: 5}}, ":80,backlog=5"},
		{"web=80,backlog=5", Spec{Name: "web", Network: TCP, Port: 80, Options: Options{Backlog: 5}}, "web=:80,backlog=5"},
	} {
		t.Run(tc.text, func(t *testing.T) {
			got, err := ParseSpec(tc.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			canon := tc.canon
			if canon == "" {
				canon = tc.text
			}
			if got.String() != canon {
				t.Errorf("String() = %q, want %q", got, canon)
			}
			checkSpecRoundTrip(t, got)
		})
	}
}

func checkSpecRoundTrip(t *testing.T, s Spec) {
	t.Helper()
	again, err := ParseSpec(s.String())
	if err != nil {
		t.Fatalf("%#v: its own String: %v", s, err)
	}
	if again != s {
		t.Errorf("%q is read as another spec: %s", s.String(), cmp.Diff(s, again))
	}
}

func TestSpecOptions(t *testing.T) {
	for _, tc := range []struct {
		text  string
		want  Options
		canon string
	}{
		{"80,backlog=1", Options{Backlog: 1}, ":80,backlog=1"},
		{"80,backlog=2147483647", Options{Backlog: 1<<31 - 1}, ":80,backlog=2147483647"},
		{"/x,mode=0660", Options{Mode: 0o660, ModeSet: true}, "/x,mode=0660"},
		{"/x,mode=0", Options{ModeSet: true}, "/x,mode=0000"},
		{"fifo:/x,mode=777", Options{Mode: 0o777, ModeSet: true}, "fifo:/x,mode=0777"},
		{"/x,user=www-data,group=33", Options{User: "www-data", Group: "33"}, "/x,user=www-data,group=33"},
		{"80,nodelay,keepalive", Options{KeepAlive: true, NoDelay: true}, ":80,keepalive,nodelay"},
		{"80,linger=90s", Options{Linger: 90 * time.Second, LingerSet: true}, ":80,linger=1m30s"},
		{"80,linger=0s", Options{LingerSet: true}, ":80,linger=0s"},
		{"80,linger=2000ms", Options{Linger: 2 * time.Second, LingerSet: true}, ":80,linger=2s"},
		{"udp:80,rcvbuf=8M,sndbuf=64K", Options{RcvBuf: 8 << 20, SndBuf: 64 << 10}, "udp:80,rcvbuf=8388608,sndbuf=65536"},
		{"@x,rcvbuf=1G", Options{RcvBuf: 1 << 30}, "@x,rcvbuf=1073741824"},
		{"80,defer-accept=5s", Options{DeferAccept: 5 * time.Second}, ":80,defer-accept=5s"},
		{"/x,shared", Options{Shared: true}, "/x,shared"},
		{"seqpacket:@x,backlog=7", Options{Backlog: 7}, "seqpacket:@x,backlog=7"},
	} {
		t.Run(tc.text, func(t *testing.T) {
			got, err := ParseSpec(tc.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got.Options); diff != "" {
				t.Error(diff)
			}
			if got.String() != tc.canon {
				t.Errorf("String() = %q, want %q", got, tc.canon)
			}
			checkSpecRoundTrip(t, got)
		})
	}
}

func TestBadSpecs(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, tc := range []struct{ text, fault string }{
		{"", `it is empty`},
		{" 80", `it begins or ends with a space`},
		{"80\n", `it has a control character`},
		{"/run/\x00", `it has a control character`},
		{"80800", `port 80800 is above 65535`},
		{"99999999999999999999", `port 99999999999999999999 is above 65535`},
		{"-80", `port "-80" is not a number`},
		{"+80", `port "+80" is not a number`},
		{"8_0", `port "8_0" is neither a number nor the name of a tcp service`},
		{"80-90", `port "80-90" is neither a number nor the name of a tcp service`},
		{":nosuchservice", `port "nosuchservice" is neither a number nor the name of a tcp service`},
		{"udp:nosuchservice:x", `port "x" is neither a number nor the name of a udp service`},
		{":", `the port after ":" is missing`},
		{"tcp:", `the port is missing`},
		{"tcp::", `the port after ":" is missing`},
		{"localhost", `"localhost" has no port; write localhost:PORT`},
		{"localhost:", `the port after ":" is missing`},
		{"127.0.0.1", `"127.0.0.1" has no port; write 127.0.0.1:PORT`},
		{"300.1.1.1:80", `300.1.1.1 is not an IPv4 address`},
		{"8080:80", `8080 is not an IPv4 address`},
		{"-h:80", `"-h" is neither an address nor the name of a host`},
		{"a b:80", `"a b" is neither an address nor the name of a host`},
		{long + ":80", `"` + long + `" is neither an address nor the name of a host`},
		{"*:80", `for all addresses write :80`},
		{"::1", `an IPv6 address stands in brackets, before the port: [::1]:PORT`},
		{"::1:8080", `an IPv6 address stands in brackets: [::1]:8080`},
		{"fe80::1%eth0:80", `an IPv6 address stands in brackets: [fe80::1%eth0]:80`},
		{"a:b:80", `it has too many colons; write HOST:PORT, or [IPV6]:PORT`},
		{"[::1]", `the port is missing; write [::1]:PORT`},
		{"[::1]:", `the port is missing; write [::1]:PORT`},
		{"[::1]80", `the port is missing; write [::1]:PORT`},
		{"[::1]%lo:1234", `the port is missing; write [::1]:PORT`},
		{"[::1:80", `the bracket is not closed`},
		{"[127.0.0.1]:80", `"127.0.0.1" is not an IPv6 address; brackets are for those only`},
		{"[]:80", `"" is not an IPv6 address; brackets are for those only`},
		{"[::1%]:80", `"::1%" is not an IPv6 address; brackets are for those only`},
		{"[::1%a]:80%b", `"a%b" is no interface; write [IPV6%INTERFACE]:PORT`},
		{"[::1]:80%a]b", `"a]b" is no interface; write [IPV6%INTERFACE]:PORT`},
		{"tcp4:[::1]:80", `::1 is not an IPv4 address`},
		{"udp4:[::1]:80", `::1 is not an IPv4 address`},
		{"tcp6:127.0.0.1:80", `127.0.0.1 is not an IPv6 address`},
		{"tcp6:[::ffff:127.0.0.1]:80", `::ffff:127.0.0.1 is not an IPv6 address`},
		{"http://localhost:80", `it is written like a URL; write HOST:PORT`},
		{"tcp://localhost:80", `it is written like a URL; write HOST:PORT`},
		{"unixpacket:/run/x", `unknown network "unixpacket"; there are tcp, tcp4, tcp6, udp, udp4, udp6, unix, unixgram, seqpacket, fifo`},
		{"tcp:/run/x", `it is a path; write unix:/run/x`},
		{"run/x.sock", `a path must be absolute, and a port has no slash`},
		{"80/tcp", `a path must be absolute, and a port has no slash`},
		{"unix:", `the path after "unix:" is missing`},
		{"fifo:", `the path after "fifo:" is missing`},
		{"unix:run/x", `the path "run/x" is not absolute`},
		{"/", `the path "/" is that of a directory`},
		{"/run/", `the path "/run/" is that of a directory`},
		{"@", `the abstract name after "@" is empty`},
		{"fifo:@x", `a FIFO has a path, no abstract name`},
		{"/" + strings.Repeat("x", 107), `the path has 108 bytes, the kernel allows 107`},
		{"=80", `the name is empty`},
		{"n\u00e4me=80", `the name "näme" has a character that is not printable ASCII`},
		{long + "=80", `the name has 300 characters, at most 255 are allowed`},
		{"web=", `the address is missing`},
		{"web=api=80", `"api=80" has no port; write api=80:PORT`},
		{"80,", `there is a comma with no option after it`},
		{"80,,nodelay", `there is a comma with no option after it`},
		{",nodelay", `the address is missing`},
		{"/run/a,b", `unknown option "b"; there are backlog=, mode=, user=, group=, keepalive, nodelay, linger=, rcvbuf=, sndbuf=, defer-accept=, shared`},
		{"80,backlog", `backlog= needs a value`},
		{"80,backlog=", `backlog= needs a value`},
		{"80,backlog=0", `backlog=0: it must be at least 1`},
		{"80,backlog=-1", `backlog=-1: it is not a number`},
		{"80,backlog=2147483648", `backlog=2147483648: it is above 2147483647`},
		{"80,backlog=1,backlog=1", `backlog= is given twice`},
		{"80,nodelay,nodelay", `nodelay is given twice`},
		{"80,nodelay=yes", `nodelay takes no value`},
		{"80,nodelay=", `nodelay takes no value`},
		{"80,mode=0660", `mode= is for paths, not for tcp`},
		{"@x,user=me", `user= is for paths, not for abstract unix`},
		{"udp:80,backlog=1", `backlog= is for sockets that accept, not for udp`},
		{"unixgram:/x,backlog=1", `backlog= is for sockets that accept, not for unixgram`},
		{"/x,nodelay", `nodelay is for TCP, not for unix`},
		{"udp6:1,linger=1s", `linger= is for TCP, not for udp6`},
		{"fifo:/x,rcvbuf=1", `rcvbuf= is for sockets, not for fifo`},
		{"80,shared", `shared is for unix sockets with a path, not for tcp`},
		{"fifo:/x,shared", `shared is for unix sockets with a path, not for fifo`},
		{"/x,mode=rw", `mode=rw: it is not octal, as in 0660`},
		{"/x,mode=+6", `mode=+6: it is not octal, as in 0660`},
		{"/x,mode=0888", `mode=0888: it is not octal, as in 0660`},
		{"/x,mode=1777", `mode=1777: it is above 0777`},
		{"/x,user=a:b", `user=a:b: it is no name of a user or group`},
		{"/x,group=a b", `group=a b: it is no name of a user or group`},
		{"80,linger=5", `linger=5: it has no unit; write 5s`},
		{"80,linger=0", `linger=0: it has no unit; write 0s`},
		{"80,linger=-5s", `linger=-5s: it is not a duration, as in 5s or 2m`},
		{"80,linger=5x", `linger=5x: it is not a duration, as in 5s or 2m`},
		{"80,linger=500ms", `linger=500ms: the kernel counts it in whole seconds`},
		{"80,linger=600000h", `linger=600000h: it is above 2147483647 seconds`},
		{"80,defer-accept=0s", `defer-accept=0s: it must be at least 1s`},
		{"80,rcvbuf=K", `rcvbuf=K: it is not a number of bytes, as in 65536, 64K or 1M`},
		{"80,rcvbuf=1.5M", `rcvbuf=1.5M: it is not a number of bytes, as in 65536, 64K or 1M`},
		{"80,sndbuf=0K", `sndbuf=0K: it must be at least 1`},
		{"80,sndbuf=2G", `sndbuf=2G: it is above 2147483647 bytes`},
	} {
		t.Run(tc.text, func(t *testing.T) {
			got, err := ParseSpec(tc.text)
			if err == nil {
				t.Fatalf("read as %#v", got)
			}
			if got != (Spec{}) {
				t.Errorf("a spec came with the error: %#v", got)
			}
			_, fault, _ := strings.Cut(err.Error(), `": `)
			if !strings.HasPrefix(err.Error(), "bad listen spec ") || fault != tc.fault {
				t.Errorf("error\n%s\nwant\n%s", err, tc.fault)
			}
		})
	}
}

func TestSpecErrorIsWhole(t *testing.T) {
	_, err := ParseSpec("80800")
	if want := `bad listen spec "80800": port 80800 is above 65535`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestParseSpecs(t *testing.T) {
	for _, tc := range []struct {
		name  string
		texts []string
		err   string
	}{
		{"none", nil, ""},
		{"several", []string{"web=80", "admin=127.0.0.1:81", "/run/x", "udp:80"}, ""},
		{"unnamed ones", []string{"80", "81"}, ""},
		{"port 0", []string{"0", "0", "a=127.0.0.1:0", "b=127.0.0.1:0"}, ""},
		{"specific beside wildcard", []string{"80", "127.0.0.1:80", "[::1]:80"}, ""},
		{"one wildcard a family", []string{"tcp4:80", "tcp6:80"}, ""},
		{"both wildcards", []string{"0.0.0.0:80", "tcp6:80"}, ""},
		{"hosts", []string{"a.example:80", "b.example:80"}, ""},
		{"interfaces", []string{"[fe80::1%a]:80", "[fe80::1%b]:80"}, ""},
		{"abstract types", []string{"@x", "unixgram:@x"}, ""},
		{"a path and an abstract name", []string{"/x", "@/x"}, ""},
		{"a bad one", []string{"80", "80800"}, `bad listen spec "80800": port 80800 is above 65535`},
		{"name", []string{"web=80", "web=81"}, `listen specs "web=80" and "web=81" have the same name; give one another name`},
		{"port", []string{"80", "web=:80"}, `listen specs "80" and "web=:80" have the same address; leave one out`},
		{"all addresses", []string{"80", "[::]:80"}, `listen specs "80" and "[::]:80" have the same address; leave one out`},
		{"all IPv4", []string{"tcp4:80", "0.0.0.0:80"}, `listen specs "tcp4:80" and "0.0.0.0:80" have the same address; leave one out`},
		{"all IPv6", []string{"tcp6:80", "tcp6:[::]:80"}, `listen specs "tcp6:80" and "tcp6:[::]:80" have the same address; leave one out`},
		{"spelling", []string{"[::1]:80", "tcp6:[0:0::1]:80"}, `listen specs "[::1]:80" and "tcp6:[0:0::1]:80" have the same address; leave one out`},
		{"mapped", []string{"127.0.0.1:80", "[::ffff:127.0.0.1]:80"}, `listen specs "127.0.0.1:80" and "[::ffff:127.0.0.1]:80" have the same address; leave one out`},
		{"host", []string{"a.example:80", "A.Example:http"}, `listen specs "a.example:80" and "A.Example:http" have the same address; leave one out`},
		{"options", []string{"80", "80,nodelay"}, `listen specs "80" and "80,nodelay" have the same address; leave one out`},
		{"path", []string{"/run/x", "fifo:/run//x"}, `listen specs "/run/x" and "fifo:/run//x" have the same address; leave one out`},
		{"abstract", []string{"@x", "unix:@x"}, `listen specs "@x" and "unix:@x" have the same address; leave one out`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			specs, err := ParseSpecs(tc.texts)
			if tc.err != "" {
				if err == nil || err.Error() != tc.err || specs != nil {
					t.Errorf("%v, error\n%v\nwant\n%s", specs, err, tc.err)
				}
				return
			}
			if err != nil || len(specs) != len(tc.texts) {
				t.Errorf("%v, %v; want %d specs", specs, err, len(tc.texts))
			}
		})
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"web": true, "my.socket": true, "a=b, c/d@e": true, " ": true, strings.Repeat("x", 255): true,
		"": false, strings.Repeat("x", 256): false, "a:b": false, "a\tb": false, "\x7f": false, "é": false, "\xff": false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
}

// What is read is written and read again as the same; what is not, is refused in one printable line.
func FuzzParseSpec(f *testing.F) {
	f.Add("web=tcp:[fe80::1]:8080%eth0,backlog=5,linger=5s")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSpec(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "bad listen spec ") || strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("error %q", err)
			}
			return
		}
		checkSpecRoundTrip(t, s)
		if !slices.Contains(allNetworks(), s.Network) || s.Network.IsIP() != (s.Path == "") {
			t.Errorf("%q: %#v", text, s)
		}
		if s.Name != "" && CheckName(s.Name) != nil {
			t.Errorf("%q: name %q", text, s.Name)
		}
		if _, err := ParseSpecs([]string{text, text}); err == nil && (s.Port != 0 || s.Path != "") {
			t.Errorf("%q may stand twice", text)
		}
	})
}
