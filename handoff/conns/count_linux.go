package conns

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Count counts connections: a dump, which the kernel filters, and, unless there is a Cgroup, a look at the descriptors of the
// processes until each connection is somebody's. For 20,000 connections that is some 30 ms of CPU by cgroup, 10 more with
// IdleAfter, and 130 ms by process; ask once a second at most. A process whose files may not be read is an error wrapping [fs.ErrPermission].
func (d *Diag) Count(ctx context.Context, q Question) (Count, error) {
	if q.Cgroup != 0 && q.Listeners != nil && !d.allOfCgroup(ctx, q) {
		q.Cgroup = 0
	}
	// The dump comes first: a connection that is accepted in between is then counted as waiting. The other way round it would
	// have an inode that no process had yet, and be missed.
	open, err := d.marks(ctx, q)
	if err != nil {
		return Count{}, err
	}
	accepted, waiting := split(open)
	n := Count{Waiting: waiting}
	if q.Cgroup == 0 {
		if accepted, err = ownedBy(ctx, accepted, q.PIDs); err != nil {
			return Count{}, err
		}
	}
	n.tell(accepted, q)
	return n, nil
}

// allOfCgroup tells whether the cgroup has all the listeners. It has none where the kernel can't tell.
func (d *Diag) allOfCgroup(ctx context.Context, q Question) bool {
	its, err := d.Dump(ctx, Query{Families: q.Families, States: Set(Listen), Ports: q.Ports, Cgroup: q.Cgroup})
	if err != nil {
		return false
	}
	for _, inode := range q.Listeners {
		if !slices.ContainsFunc(its, func(c Conn) bool { return c.Inode == inode }) {
			return false
		}
	}
	return true
}

// mark is what counting needs of a connection.
type mark struct {
	cookie uint64
	inode  uint64
	quiet  time.Duration // no data has gone either way; 0 while bytes wait, and if it is not known
	age    time.Duration // at least
}

// marks are those in ESTABLISHED and CLOSE_WAIT, each once.
func (d *Diag) marks(ctx context.Context, q Question) ([]mark, error) {
	query := Query{States: Set(Established, CloseWait), Ports: q.Ports, Cgroup: q.Cgroup, Info: q.IdleAfter > 0}
	var all []mark
	for _, family := range familiesOf(q.Families) {
		var some []mark
		begin := func() func([]byte) error {
			some = some[:0]
			return func(b []byte) error {
				m, err := parseMark(b)
				some = append(some, m)
				return err
			}
		}
		if _, err := d.dumpTo(ctx, family, query, begin); err != nil {
			return nil, dumpError(family, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// Where struct tcp_info has the times since data was sent and received, in milliseconds.
const (
	infoSent = unsafe.Offsetof(unix.TCPInfo{}.Last_data_sent)
	infoRecv = unsafe.Offsetof(unix.TCPInfo{}.Last_data_recv)
)

// parseMark reads what parseConn does, but less of it.
func parseMark(b []byte) (mark, error) {
	id, rest := b[4:4+sizeID], b[4+sizeID:]
	m := mark{cookie: uint64(native.Uint32(id[40:])) | uint64(native.Uint32(id[44:]))<<32, inode: uint64(native.Uint32(rest[16:]))}
	queued := native.Uint32(rest[4:]) != 0 || native.Uint32(rest[8:]) != 0
	err := eachAttribute(b[sizeAnswer:], func(kind uint16, info []byte) {
		if kind != extInfo || len(info) < int(infoRecv)+4 {
			return
		}
		sent := time.Duration(native.Uint32(info[infoSent:])) * time.Millisecond
		received := time.Duration(native.Uint32(info[infoRecv:])) * time.Millisecond
		m.age = max(sent, received)
		if !queued {
			m.quiet = min(sent, received)
		}
	})
	return m, err
}

// split drops repetitions (see once) and those that nobody has accepted.
func split(all []mark) (accepted []mark, waiting int) {
	seen := make(map[uint64]struct{}, len(all))
	accepted = all[:0]
	for _, m := range all {
		if _, again := seen[m.cookie]; again {
			continue
		}
		seen[m.cookie] = struct{}{}
		if m.inode == 0 {
			waiting++
		} else {
			accepted = append(accepted, m)
		}
	}
	return accepted, waiting
}

// ownedBy are those of all that one of the processes has open.
func ownedBy(ctx context.Context, all []mark, pids []int) ([]mark, error) {
	wanted := make(map[uint64]mark, len(all))
	for _, m := range all {
		wanted[m.inode] = m
	}
	owned := all[:0]
	for _, pid := range pids {
		if len(wanted) == 0 {
			break
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := eachSocket(pid, func(inode uint64) bool {
			if m, ok := wanted[inode]; ok {
				delete(wanted, inode)
				owned = append(owned, m)
			}
			return len(wanted) > 0
		})
		if err != nil && !gone(err) {
			return nil, socketsError(pid, err)
		}
	}
	return owned, nil
}

// gone: the directory of a process that has ended vanishes (ENOENT), also under the feet of its reader (ESRCH).
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// tell what is to be told of those that are counted.
func (n *Count) tell(accepted []mark, q Question) {
	n.Open = len(accepted)
	cookies := make([]uint64, 0, len(accepted))
	for _, m := range accepted {
		n.Oldest = max(n.Oldest, m.age)
		cookies = append(cookies, m.cookie)
		if q.IdleAfter == 0 || m.quiet <= q.IdleAfter {
			continue
		}
		if n.Idle == 0 || m.quiet < n.IdleFor {
			n.IdleFor = m.quiet
		}
		n.Idle++
	}
	if q.Ages != nil {
		now := time.Now()
		n.Oldest = max(n.Oldest, now.Sub(q.Ages.learn(cookies, now)))
	}
}
