package handoff

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"time"
)

// Options are how the socket of a [Spec] is made. The zero value leaves all to the kernel.
type Options struct {
	// Backlog is the limit of the accept queue; 0 stands for the most that the kernel gives (somaxconn).
	Backlog int
	// Mode, if ModeSet, is the permissions of the socket's path; User and Group, if not "", are its owners, by name or number.
	Mode        fs.FileMode
	ModeSet     bool
	User, Group string
	// KeepAlive and NoDelay are set on accepted connections, which inherit them from the listener.
	KeepAlive, NoDelay bool
	// Linger, if LingerSet, is for how long close waits for unsent data, in whole seconds; 0 resets the connection.
	Linger    time.Duration
	LingerSet bool
	// RcvBuf and SndBuf are the socket's buffers in bytes; 0 leaves them alone.
	RcvBuf, SndBuf int
	// DeferAccept holds connections back, half-open, until their first data or for so long; whole seconds, 0 is off.
	DeferAccept time.Duration
	// Shared has all generations use one socket instead of replacing the path at each switch.
	Shared bool
}

// specOption is one option: where it is allowed, how it is read and how it is written.
type specOption struct {
	name string
	flag bool // takes no value
	// where says in words what legal tests.
	where string
	legal func(Spec) bool
	read  func(o *Options, v optionValue) error
	// write returns the value, "" for one that is not set. A flag that is set returns anything else.
	write func(o Options) string
}

// specOptions are all options, in the order in which String writes them.
func specOptions() []specOption {
	return []specOption{
		{"backlog", false, "sockets that accept", Spec.hasBacklog,
			func(o *Options, v optionValue) (err error) { o.Backlog, err = v.count(); return },
			func(o Options) string { return optionCount(o.Backlog) }},
		{"mode", false, "paths", Spec.hasPath,
			func(o *Options, v optionValue) (err error) { o.ModeSet = true; o.Mode, err = v.mode(); return },
			func(o Options) string { return optionIf(o.ModeSet, fmt.Sprintf("%04o", o.Mode)) }},
		{"user", false, "paths", Spec.hasPath,
			func(o *Options, v optionValue) error { o.User = string(v); return v.checkAccount() },
			func(o Options) string { return o.User }},
		{"group", false, "paths", Spec.hasPath,
			func(o *Options, v optionValue) error { o.Group = string(v); return v.checkAccount() },
			func(o Options) string { return o.Group }},
		{"keepalive", true, "TCP", Spec.isTCP,
			func(o *Options, _ optionValue) error { o.KeepAlive = true; return nil },
			func(o Options) string { return optionIf(o.KeepAlive, "set") }},
		{"nodelay", true, "TCP", Spec.isTCP,
			func(o *Options, _ optionValue) error { o.NoDelay = true; return nil },
			func(o Options) string { return optionIf(o.NoDelay, "set") }},
		{"linger", false, "TCP", Spec.isTCP,
			func(o *Options, v optionValue) (err error) { o.LingerSet = true; o.Linger, err = v.seconds(0); return },
			func(o Options) string { return optionIf(o.LingerSet, o.Linger.String()) }},
		{"rcvbuf", false, "sockets", Spec.isSocket,
			func(o *Options, v optionValue) (err error) { o.RcvBuf, err = v.bytes(); return },
			func(o Options) string { return optionCount(o.RcvBuf) }},
		{"sndbuf", false, "sockets", Spec.isSocket,
			func(o *Options, v optionValue) (err error) { o.SndBuf, err = v.bytes(); return },
			func(o Options) string { return optionCount(o.SndBuf) }},
		{"defer-accept", false, "TCP", Spec.isTCP,
			func(o *Options, v optionValue) (err error) { o.DeferAccept, err = v.seconds(time.Second); return },
			func(o Options) string { return optionIf(o.DeferAccept > 0, o.DeferAccept.String()) }},
		{"shared", true, "unix sockets with a path", Spec.hasUnixPath,
			func(o *Options, _ optionValue) error { o.Shared = true; return nil },
			func(o Options) string { return optionIf(o.Shared, "set") }},
	}
}

func (s Spec) isTCP() bool       { return s.Network.IsTCP() }
func (s Spec) isSocket() bool    { return s.Network != FIFO }
func (s Spec) hasBacklog() bool  { return s.isTCP() || s.Network == Unix || s.Network == SeqPacket }
func (s Spec) hasPath() bool     { return strings.HasPrefix(s.Path, "/") }
func (s Spec) hasUnixPath() bool { return s.hasPath() && s.isSocket() }

// written is the option as it stands in a spec, with its "=".
func (o specOption) written() string {
	if o.flag {
		return o.name
	}
	return o.name + "="
}

// parseOptions reads what follows the first comma. The address must have been read: what is legal depends on it.
func (s *Spec) parseOptions(text string) error {
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, hasValue := strings.Cut(part, "=")
		option, err := findOption(name)
		switch {
		case err != nil:
			return err
		case seen[name]:
			return fmt.Errorf("%s is given twice", option.written())
		case !option.legal(*s):
			return fmt.Errorf("%s is for %s, not for %s", option.written(), option.where, s.kind())
		case option.flag && hasValue:
			return fmt.Errorf("%s takes no value", name)
		case !option.flag && value == "":
			return fmt.Errorf("%s needs a value", option.written())
		}
		if err := option.read(&s.Options, optionValue(value)); err != nil {
			return fmt.Errorf("%s: %w", option.written()+value, err)
		}
		seen[name] = true
	}
	return nil
}

// kind is the network, in the words of "not for …".
func (s *Spec) kind() string {
	if strings.HasPrefix(s.Path, "@") {
		return "abstract " + string(s.Network)
	}
	return string(s.Network)
}

func findOption(name string) (specOption, error) {
	if name == "" {
		return specOption{}, errors.New("there is a comma with no option after it")
	}
	var known []string
	for _, option := range specOptions() {
		if option.name == name {
			return option, nil
		}
		known = append(known, option.written())
	}
	return specOption{}, fmt.Errorf("unknown option %q; there are %s", name, joinWords(known))
}

// write appends the options that are set, each after a comma.
func (o Options) write(b *strings.Builder) {
	for _, option := range specOptions() {
		value := option.write(o)
		if value == "" {
			continue
		}
		b.WriteString("," + option.written())
		if !option.flag {
			b.WriteString(value)
		}
	}
}

func optionIf(set bool, value string) string {
	if set {
		return value
	}
	return ""
}

func optionCount(n int) string { return optionIf(n > 0, strconv.Itoa(n)) }

// optionValue is what stands behind the "=" of an option. Its methods read it; their errors say "it".
type optionValue string

// count reads a number from 1 to the most that fits the kernel's int.
func (v optionValue) count() (int, error) {
	if !isDigits(string(v)) {
		return 0, errors.New("it is not a number")
	}
	n, err := strconv.ParseUint(string(v), 10, 31)
	switch {
	case err != nil:
		return 0, fmt.Errorf("it is above %d", math.MaxInt32)
	case n == 0:
		return 0, errors.New("it must be at least 1")
	}
	return int(n), nil
}

// bytes reads a number of bytes, or of 1024 (K), 1024² (M) or 1024³ (G) of them, as systemd does.
func (v optionValue) bytes() (int, error) {
	number, shift := v, 0
	if i := strings.IndexByte("KMG", v[len(v)-1]); i >= 0 {
		number, shift = v[:len(v)-1], 10*(i+1)
	}
	if !isDigits(string(number)) {
		return 0, errors.New("it is not a number of bytes, as in 65536, 64K or 1M")
	}
	n, err := number.count()
	if err != nil {
		return 0, err
	}
	if n > math.MaxInt32>>shift {
		return 0, fmt.Errorf("it is above %d bytes", math.MaxInt32)
	}
	return n << shift, nil
}

// mode reads permissions in octal. Zero is one of them.
func (v optionValue) mode() (fs.FileMode, error) {
	n, err := strconv.ParseUint(string(v), 8, 32)
	switch {
	case err != nil:
		return 0, errors.New("it is not octal, as in 0660")
	case n > 0o777:
		return 0, errors.New("it is above 0777")
	}
	return fs.FileMode(n), nil
}

// seconds reads a duration for a kernel that counts in seconds. Less than one would become none at all, which means something
// else, so nothing is rounded.
func (v optionValue) seconds(least time.Duration) (time.Duration, error) {
	if isDigits(string(v)) {
		return 0, fmt.Errorf("it has no unit; write %ss", v)
	}
	d, err := time.ParseDuration(string(v))
	switch {
	case err != nil || strings.ContainsAny(string(v), "+-"):
		return 0, errors.New("it is not a duration, as in 5s or 2m")
	case d%time.Second != 0:
		return 0, errors.New("the kernel counts it in whole seconds")
	case d < least:
		return 0, fmt.Errorf("it must be at least %v", least)
	case d/time.Second > math.MaxInt32:
		return 0, fmt.Errorf("it is above %d seconds", math.MaxInt32)
	}
	return d, nil
}

// checkAccount: whether there is such a user or group is asked when the socket is made.
func (v optionValue) checkAccount() error {
	if strings.ContainsAny(string(v), " :/=") {
		return errors.New("it is no name of a user or group")
	}
	return nil
}
