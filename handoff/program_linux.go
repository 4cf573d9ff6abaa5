package handoff

import (
	"math"

	"golang.org/x/sys/unix"
)

// indices are the places in the kernel's array that a program answers with.
type indices struct {
	live, candidate, probe []uint32
	share                  float64
	// v4 and v6 tell which packets come here: a program that need not ask is shorter,
	// and the kernel translates it anew at each steer.
	v4, v6 bool
}

// program writes the steering program: probes first, then the candidate's
// share, then live. (Documentation/networking/filter.rst; the network header is
// reached with SKF_NET_OFF because the data pointer stands behind TCP's.)
func program(in indices) []unix.SockFilter {
	rest := spread(in.live)
	if in.share > 0 && len(in.candidate) > 0 {
		rest = append(byShare(in.share, spread(in.candidate)), rest...)
	}
	if len(in.probe) == 0 {
		return rest
	}
	return append(in.ifProbe(spread(in.probe)), rest...)
}

// spread picks one of the indices at random: a TCP connection is steered once,
// by its first packet, so a random choice is stable for it.
func spread(to []uint32) []unix.SockFilter {
	if len(to) == 1 {
		return []unix.SockFilter{ret(to[0])}
	}
	p := []unix.SockFilter{random(), {Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(len(to))}}
	for i, index := range to[:len(to)-1] {
		p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(i), Jf: 1}, ret(index))
	}
	return append(p, ret(to[len(to)-1]))
}

func byShare(share float64, candidate []unix.SockFilter) []unix.SockFilter {
	if share >= 1 {
		return candidate
	}
	threshold := uint32(math.Min(share*(1<<32), math.MaxUint32))
	return append([]unix.SockFilter{
		random(),
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: threshold, Jf: 1},
		ja(len(candidate)),
	}, candidate...)
}

// ifProbe runs hit for a packet with the probe's hop limit whose source is in
// 127/8, is ::1, or is its destination too; any other goes on behind it.
func (in indices) ifProbe(hit []unix.SockFilter) []unix.SockFilter {
	b := &block{}
	if in.v4 && in.v6 {
		b.load(unix.BPF_B, 0)
		b.add(unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 4})
		b.jump(unix.BPF_JEQ|unix.BPF_K, 6, "v6", "")
	}
	if in.v4 {
		probeV4(b)
	}
	b.label("v6")
	if in.v6 {
		probeV6(b)
	}
	b.label("miss")
	b.add(ja(len(hit)))
	b.label("hit")
	return append(b.resolve(), hit...)
}

func probeV4(b *block) {
	b.load(unix.BPF_B, 8)
	b.jump(unix.BPF_JEQ|unix.BPF_K, probeHopLimit, "", "miss")
	b.compare(16, 12, "hit", "")
	b.add(unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 24})
	b.jump(unix.BPF_JEQ|unix.BPF_K, 127, "hit", "miss")
}

func probeV6(b *block) {
	const source, destination = 8, 24
	b.load(unix.BPF_B, 7)
	b.jump(unix.BPF_JEQ|unix.BPF_K, probeHopLimit, "", "miss")
	for word := uint32(0); word < 12; word += 4 {
		b.compare(destination+word, source+word, "", "loopback")
	}
	b.compare(destination+12, source+12, "hit", "")
	b.label("loopback")
	for word := uint32(0); word < 12; word += 4 {
		b.load(unix.BPF_W, source+word)
		b.jump(unix.BPF_JEQ|unix.BPF_K, 0, "", "miss")
	}
	b.load(unix.BPF_W, source+12)
	b.jump(unix.BPF_JEQ|unix.BPF_K, 1, "hit", "miss")
}

// block is a piece of program with named jump targets; "" is the next instruction.
type block struct {
	code   []unix.SockFilter
	jumps  []jump
	labels map[string]int
}

type jump struct {
	at          int
	then, other string
}

func (b *block) add(f unix.SockFilter) { b.code = append(b.code, f) }

func (b *block) load(size uint16, offset uint32) {
	b.add(unix.SockFilter{Code: unix.BPF_LD | unix.BPF_ABS | size, K: netOffset + offset})
}

func (b *block) jump(op uint16, k uint32, then, other string) {
	b.jumps = append(b.jumps, jump{len(b.code), then, other})
	b.add(unix.SockFilter{Code: unix.BPF_JMP | op, K: k})
}

// compare leaves the word at offset with in the accumulator.
func (b *block) compare(offset, with uint32, then, other string) {
	b.load(unix.BPF_W, offset)
	b.add(unix.SockFilter{Code: unix.BPF_MISC | unix.BPF_TAX})
	b.load(unix.BPF_W, with)
	b.jump(unix.BPF_JEQ|unix.BPF_X, 0, then, other)
}

func (b *block) label(name string) {
	if b.labels == nil {
		b.labels = map[string]int{}
	}
	b.labels[name] = len(b.code)
}

func (b *block) resolve() []unix.SockFilter {
	for _, j := range b.jumps {
		b.code[j.at].Jt, b.code[j.at].Jf = b.distance(j.at, j.then), b.distance(j.at, j.other)
	}
	return b.code
}

func (b *block) distance(at int, to string) uint8 {
	if to == "" {
		return 0
	}
	return uint8(b.labels[to] - at - 1)
}

// Offsets that the kernel gives a meaning of its own (uapi/linux/filter.h:
// SKF_NET_OFF -0x100000, SKF_AD_OFF -0x1000, SKF_AD_RANDOM 56), as two's complement.
const (
	netOffset    uint32 = 0xfff00000
	randomOffset uint32 = 0xfffff000 + 56
)

func random() unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: randomOffset}
}

func ja(over int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(over)}
}

func ret(index uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: index}
}
