package conns

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The seeds in testdata are answers of Linux 6.18, sequence number 7: dumps and exact answers, errors among them.
func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(message(unix.NLMSG_DONE, unix.NLM_F_MULTI, 7, make([]byte, 4)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &answer{seq: 7}
		err := a.take(b)
		if len(a.conns) > len(b)/(unix.SizeofNlMsghdr+sizeAnswer) {
			t.Errorf("%d sockets in %d bytes", len(a.conns), len(b))
		}
		if err == nil && len(b) > 0 && len(b) < unix.SizeofNlMsghdr {
			t.Errorf("%d bytes are no message", len(b))
		}
		for _, c := range a.conns {
			checkConn(t, c)
		}
	})
}

func checkConn(t *testing.T, c Conn) {
	t.Helper()
	if c.Family != unix.AF_INET && c.Family != unix.AF_INET6 {
		t.Errorf("family %d", c.Family)
	}
	if !c.Local.IsValid() || !c.Remote.IsValid() || c.Local.Addr().Is4In6() || c.Remote.Addr().Is4In6() {
		t.Errorf("addresses %v %v", c.Local, c.Remote)
	}
	if c.Idle() < 0 || c.State.String() == "" {
		t.Errorf("%+v", c)
	}
}

// message builds one netlink message.
func message(kind, flags uint16, seq uint32, body []byte) []byte {
	b := native.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = native.AppendUint16(b, kind)
	b = native.AppendUint16(b, flags)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 0)
	return append(b, body...)
}

// socketBody is a struct inet_diag_msg of the given family with only ports in it.
func socketBody(family byte, local uint16) []byte {
	b := make([]byte, sizeAnswer)
	b[0], b[1] = family, byte(Established)
	b[4], b[5] = byte(local>>8), byte(local)
	return b
}

func TestTake(t *testing.T) {
	inet := socketBody(unix.AF_INET, 80)
	refused := native.AppendUint32(nil, ^uint32(unix.EBUSY)+1)
	part := message(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_MULTI, 7, inet)
	cut := func(b []byte, size uint32) []byte {
		b = append([]byte(nil), b...)
		native.PutUint32(b, size)
		return b
	}
	for _, tc := range []struct {
		name  string
		bytes []byte
		err   error
		conns int
		done  bool
	}{
		{"nothing", nil, nil, 0, false},
		{"a part", part, nil, 1, false},
		{"two parts", append(append([]byte(nil), part...), part...), nil, 2, false},
		{"the only one", message(unix.SOCK_DIAG_BY_FAMILY, 0, 7, inet), nil, 1, true},
		{"another request's", message(unix.SOCK_DIAG_BY_FAMILY, 0, 6, inet), nil, 0, false},
		{"another request's end", message(unix.NLMSG_DONE, 0, 6, nil), nil, 0, false},
		{"end", message(unix.NLMSG_DONE, unix.NLM_F_MULTI, 7, make([]byte, 4)), nil, 0, true},
		{"end with an error", message(unix.NLMSG_DONE, unix.NLM_F_MULTI, 7, refused), unix.EBUSY, 0, true},
		{"error", message(unix.NLMSG_ERROR, 0, 7, refused), unix.EBUSY, 0, true},
		{"acknowledgement", message(unix.NLMSG_ERROR, 0, 7, make([]byte, 4)), nil, 0, true},
		{"no-op", message(unix.NLMSG_NOOP, 0, 7, nil), nil, 0, false},
		{"half a header", part[:8], errMalformed, 0, false},
		{"too long", cut(part, 4096), errMalformed, 0, false},
		{"too short", cut(part, 15), errMalformed, 0, false},
		{"huge", cut(part, 1<<32-1), errMalformed, 0, false},
		{"half a socket", message(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_MULTI, 7, inet[:40]), errMalformed, 0, false},
		{"family", message(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_MULTI, 7, socketBody(9, 80)), errMalformed, 0, false},
		{"attribute", message(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_MULTI, 7, append(inet, 2, 0, 2, 0)), errMalformed, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := &answer{seq: 7}
			if err := a.take(tc.bytes); !errors.Is(err, tc.err) {
				t.Errorf("error %v, want %v", err, tc.err)
			}
			if len(a.conns) != tc.conns || a.done != tc.done {
				t.Errorf("%d sockets, done %v; want %d, %v", len(a.conns), a.done, tc.conns, tc.done)
			}
		})
	}
}

func TestInterruptedDumpIsNoticed(t *testing.T) {
	a := &answer{seq: 7}
	if err := a.take(message(unix.NLMSG_DONE, unix.NLM_F_MULTI|unix.NLM_F_DUMP_INTR, 7, nil)); err != nil || !a.interrupted {
		t.Errorf("interrupted = %v, %v", a.interrupted, err)
	}
}

// A kernel whose tcp_info is shorter or longer than ours.
func TestInfoOfAnyLength(t *testing.T) {
	var full unix.TCPInfo
	size := int(unsafe.Sizeof(full))
	sent, out := int(unsafe.Offsetof(full.Last_data_sent)), int(unsafe.Offsetof(full.Data_segs_out))
	b := make([]byte, size+64)
	native.PutUint32(b[sent:], 1500)
	native.PutUint32(b[out:], 3)
	for _, n := range []int{0, sent, sent + 4, out, out + 4, size, size + 64} {
		info := parseInfo(b[:n])
		if got, want := info.Answered(), n >= out+4; got != want {
			t.Errorf("%d bytes: answered %v, want %v", n, got, want)
		}
		var want time.Duration
		if n >= sent+4 {
			want = 1500 * time.Millisecond
		}
		if info.LastDataSent != want {
			t.Errorf("%d bytes: last data sent %v, want %v", n, info.LastDataSent, want)
		}
	}
}

func TestStates(t *testing.T) {
	set := Set(Established, SynRecv)
	if set != 1<<1|1<<3 || !set.Has(SynRecv) || set.Has(Listen) {
		t.Errorf("set = %b", set)
	}
	if got := set.String(); got != "ESTABLISHED|SYN_RECV" {
		t.Errorf("string = %q", got)
	}
	if n := strings.Count(allStates.String(), "|") + 1; n != 11 || strings.Contains(allStates.String(), "State(") {
		t.Errorf("all states: %s", allStates)
	}
	if got := State(12).String(); got != "State(12)" {
		t.Errorf("no state = %q", got)
	}
}

func TestUnknownIsNotAnswered(t *testing.T) {
	var none *Info
	if none.Answered() {
		t.Error("answered without an Info")
	}
	if idle := (Conn{}).Idle(); idle != 0 {
		t.Errorf("idle for %v without an Info", idle)
	}
}
