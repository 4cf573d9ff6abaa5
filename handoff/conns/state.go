package conns

import (
	"fmt"
	"strings"
)

// State is a TCP state, numbered as the kernel does.
type State uint8

// The TCP states. SynRecv is a half-open connection: the client has been answered and its last ACK is awaited.
const (
	Established State = iota + 1
	SynSent
	SynRecv
	FinWait1
	FinWait2
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	Closing
)

func (s State) String() string {
	switch s {
	case Established:
		return "ESTABLISHED"
	case SynSent:
		return "SYN_SENT"
	case SynRecv:
		return "SYN_RECV"
	case FinWait1:
		return "FIN_WAIT1"
	case FinWait2:
		return "FIN_WAIT2"
	case TimeWait:
		return "TIME_WAIT"
	case Close:
		return "CLOSE"
	case CloseWait:
		return "CLOSE_WAIT"
	case LastAck:
		return "LAST_ACK"
	case Listen:
		return "LISTEN"
	case Closing:
		return "CLOSING"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// States is a set of states; the zero value is empty, which a [Query] takes for all of them.
type States uint32

const allStates = States(1<<(Closing+1) - 2)

// Set returns the set of the given states.
func Set(states ...State) States {
	var set States
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// Has reports whether s is in the set.
func (set States) Has(s State) bool { return set&(1<<s) != 0 }

// String lists the states of the set, joined by "|".
func (set States) String() string {
	var names []string
	for s := Established; s <= Closing; s++ {
		if set.Has(s) {
			names = append(names, s.String())
		}
	}
	return strings.Join(names, "|")
}
