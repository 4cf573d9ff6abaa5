package speed

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// alone starts the daemon with nothing in between: one fork and exec, with a
// listener as fd 3. That is the daemon's own start time, from which what gapless
// adds is counted.
type alone struct {
	b        *testing.B
	listener *os.File
	notify   *net.UnixConn
	path     string
}

func newAlone(b *testing.B) *alone {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close() // the duplicate stays; nobody is served by this one
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		b.Fatal(err)
	}
	a := &alone{b: b, listener: f, path: filepath.Join(b.TempDir(), "notify")}
	if a.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: a.path, Net: "unixgram"}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.listener.Close(); a.notify.Close() })
	return a
}

// start returns how long it took from before the fork to READY=1.
func (a *alone) start() time.Duration {
	cmd := exec.Command(os.Args[0], "daemon")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+a.path)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{a.listener}, os.Stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		a.b.Fatal(err)
	}
	a.hearReady()
	took := time.Since(began)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		a.b.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		a.b.Fatal(err)
	}
	return took
}

func (a *alone) hearReady() {
	message := make([]byte, 256)
	a.notify.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := a.notify.Read(message)
	if err != nil || !bytes.HasPrefix(message[:n], []byte("READY=1")) {
		a.b.Fatalf("the daemon said %q, %v", message[:n], err)
	}
}
