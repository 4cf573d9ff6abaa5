package spawn

import (
	"context"
	"encoding/json"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/bind"
)

// notifyName is no listener's: those have no slash in their names.
const notifyName = "/notify"

// offered is what the shim tells of its filter.
type offered struct {
	NoNewPrivs bool   // it had to set that
	Reason     string // why there is none
}

// offerBinds puts a filter on this thread, which must be the one that execs, and sends
// its notify fd. It comes before the user is changed: who has CAP_SYS_ADMIN needs no
// no_new_privs, and who has not may change the user under that, too. Without a filter
// the daemon runs all the same; with one, whose other end nobody has, it must not.
func offerBinds(conn *net.UnixConn) error {
	notify, noNewPrivs, err := bind.Install()
	t := told{Bind: &offered{NoNewPrivs: noNewPrivs}}
	var files []handoff.File
	if err != nil {
		t.Bind.Reason = err.Error()
	} else {
		defer unix.Close(notify)
		files = []handoff.File{{Name: notifyName, FD: notify}}
	}
	body, err := json.Marshal(t)
	if err == nil {
		err = handoff.Send(context.Background(), conn, handoff.Message{Body: body, Files: files})
	}
	if err != nil {
		return fmt.Errorf("can't tell the holder of its binds: %w", err)
	}
	return nil
}

// bound is the holder's side of a filter.
type bound struct {
	watch *bind.Watch
	note  string
}

// BindWatch is where the daemon's binds come to, if the order wanted that and there could
// be a filter, else nil. It is the caller's to close, not before the last of the
// daemon's processes has gone: without it their binds fail with ENOSYS.
func (p *Process) BindWatch() *bind.Watch { return p.bound.watch }

// BindNote is for people: why there is no BindWatch though the order wanted one, or what
// the daemon pays for it. It is empty if there is nothing to say.
func (p *Process) BindNote() string { return p.bound.note }

// noNewPrivsNote is the line of who lacks CAP_SYS_ADMIN.
const noNewPrivsNote = "no_new_privs is set on the daemon, since gapless has no CAP_SYS_ADMIN: set-user-ID programs (sudo, ping) have no effect in it"

// understandBinds takes the files.
func understandBinds(o offered, files []handoff.File, command string) (bound, error) {
	switch {
	case o.Reason != "":
		handoff.CloseFiles(files)
		return bound{note: o.Reason}, nil
	case len(files) != 1 || files[0].Name != notifyName:
		handoff.CloseFiles(files)
		return bound{}, fmt.Errorf("can't start %s: the shim sent no notify fd", command)
	}
	w, err := bind.NewWatch(files[0].FD)
	if err != nil {
		return bound{}, fmt.Errorf("can't start %s: %w", command, err)
	}
	b := bound{watch: w}
	if o.NoNewPrivs {
		b.note = noNewPrivsNote
	}
	return b, nil
}

func (b bound) close() {
	if b.watch != nil {
		b.watch.Close()
	}
}
