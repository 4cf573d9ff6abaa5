package conns

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Count counts the open connections on the local ports (empty: all ports) that one of the processes pids has open, and those
// that wait to be accepted there. A process that is gone has none; one whose files may not be read is an error wrapping
// [fs.ErrPermission].
func (d *Diag) Count(ctx context.Context, ports []uint16, pids []int) (Count, error) {
	// The dump comes first: a connection that is accepted in between is then counted as waiting. The other way round it would
	// have an inode that no process had yet, and be missed.
	open, err := d.Dump(ctx, Query{States: Set(Established, CloseWait), Ports: ports, Info: true})
	if err != nil {
		return Count{}, err
	}
	owned, err := socketsOf(ctx, pids)
	if err != nil {
		return Count{}, err
	}
	return count(open, owned), nil
}

func socketsOf(ctx context.Context, pids []int) (map[uint64]bool, error) {
	all := map[uint64]bool{}
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := addSockets(all, pid)
		if err != nil && !gone(err) {
			return nil, err
		}
	}
	return all, nil
}

// gone: the directory of a process that has ended vanishes (ENOENT), also under the feet of its reader (ESRCH).
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

func count(open []Conn, owned map[uint64]bool) Count {
	var n Count
	for _, c := range open {
		switch {
		case c.Inode == 0:
			n.Waiting++
		case owned[c.Inode]:
			n.add(c)
		}
	}
	return n
}

func (n *Count) add(c Conn) {
	if n.Open == 0 || c.Idle() < n.Idle {
		n.Idle = c.Idle()
	}
	n.Open++
	if c.Info != nil && !c.Info.Answered() {
		n.Unanswered++
		n.Oldest = max(n.Oldest, c.Info.LastDataSent)
	}
}
