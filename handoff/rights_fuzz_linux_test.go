package handoff

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzReceive is a hostile peer: two sendmsg with any bytes and any number of
// files each, then the end. Whatever arrives, nothing may stay open that is not
// in the message, the message must be within its limit, and there is no wait
// once the peer is gone.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{}, 0, uint8(0), uint8(0))
	f.Add(rightsHeader(1, 0, 0, 0, 0), 12, uint8(0), uint8(0))
	f.Add(append(rightsHeader(1, 0, 1, 2, 3), "\x01abcd"...), 14, uint8(1), uint8(0))
	f.Add(append(rightsHeader(1, 1, 1, 2, 0), append([]byte("\x01a"), rightsHeader(1, 0, 0, 0, 0)...)...), 14, uint8(1), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, split int, first, second uint8) {
		passed := rightsFile(t)
		fd := int(passed.Fd())
		a, b := rightsConns(t)
		split = min(max(split, 0), len(data), 32<<10)
		data = data[:min(len(data), 64<<10)] // within the socket's buffer: nobody reads yet
		for _, p := range []rightsPart{{data[:split], int(first)}, {data[split:], int(second)}} {
			if len(p.data) == 0 {
				continue // a stream passes files with a byte only
			}
			var oob []byte
			if p.fds > 0 {
				oob = unix.UnixRights(rightsRepeat(fd, min(p.fds, frameFilesMax))...)
			}
			if _, _, err := a.WriteMsgUnix(p.data, oob, nil); err != nil {
				t.Fatal(err)
			}
		}
		a.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		m, err := Receive(ctx, b, Limit{Files: 300, Body: 4096})
		if ctx.Err() != nil {
			t.Fatal("still waiting for a peer that is gone")
		}
		checkFuzzedMessage(t, m, err)
		CloseFiles(m.Files)
		if n := rightsOpen(t, passed.Name()); n != 1 {
			t.Fatalf("%d descriptors leaked (%v)", n-1, err)
		}
	})
}

func checkFuzzedMessage(t *testing.T, m Message, err error) {
	t.Helper()
	if err != nil && (m.Files != nil || m.Body != nil) {
		t.Fatalf("a message came with error %v", err)
	}
	if len(m.Files) > 300 || len(m.Body) > 4096 {
		t.Fatalf("%d files, %d bytes", len(m.Files), len(m.Body))
	}
	for _, f := range m.Files {
		if f.Name == "" || len(f.Name) > fileNameMax {
			t.Fatalf("name %q", f.Name)
		}
		if _, err := unix.FcntlInt(uintptr(f.FD), unix.F_GETFD, 0); err != nil {
			t.Fatalf("file %q is not open: %v", f.Name, err)
		}
	}
}
