package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gapless-dev/gapless/reload"
)

// A daemon that binds by itself is served with fewer rights too, or it is said why not and
// what to do.
func TestBinderWithoutRights(t *testing.T) {
	for _, c := range []struct {
		name, without string
		root          bool // only root can give that up
		how           string
		noNewPrivs    bool // must be set for it, and that is told
	}{
		{name: "nothing", without: "", how: "keep", noNewPrivs: os.Geteuid() != 0},
		{name: "its sockets can't be had", without: "dumps", how: "replace"}, // where forbidding takes no_new_privs, it is set already
		{name: "no capability", without: "root", root: true, how: "keep", noNewPrivs: true},
		{name: "no capability, and its sockets can't be had", without: "root dumps", root: true, how: "replace"},
		{name: "no tracing", without: "ptrace", root: true, how: "keep"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.root && os.Geteuid() != 0 {
				t.Skip("needs root, to give that up")
			}
			h := holdBinder(t, c.without, "--log-level", "debug")
			h.addr = h.live(1).Endpoints[0].Addr
			stop := h.load()
			h.mustReload()
			h.mustReload()
			stop()
			if st := h.quiet(); st.Relayed != 0 || st.Live().Delivery != string(reload.DeliveryBind) {
				t.Errorf("%d were relayed; delivery is %q", st.Relayed, st.Live().Delivery)
			}
			if !strings.Contains(h.log(), `"how":"`+c.how+`"`) {
				t.Errorf("the log does not say that it was %s", c.how)
			}
			if n := strings.Count(h.log(), "no_new_privs"); n > 1 || (n == 1) != c.noNewPrivs {
				t.Errorf("the log speaks %d times of no_new_privs", n)
			}
		})
	}
}

// What another user's daemon binds can't be known without CAP_SYS_PTRACE: the daemon's own
// bind fails, since the address is held, and the reason is told.
func TestBinderThatCantBeSeen(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run a daemon as another user")
	}
	h := holdBinder(t, "ptrace", "--user", "nobody", "--restart", "no")
	<-h.ended
	for _, want := range []string{"can't serve what the daemon binds by itself: ", "CAP_SYS_PTRACE", "address already in use"} {
		if !strings.Contains(h.log(), want) {
			t.Errorf("the log does not say %q:\n%s", want, h.log())
		}
	}
}

// holdBinder runs a daemon that binds by itself under a holder that has given rights up.
func holdBinder(t *testing.T, without string, args ...string) *held {
	t.Helper()
	addr := freeAddr(t)
	return begin(t, func(c *exec.Cmd) {
		i := slices.Index(c.Args, "http=127.0.0.1:0")
		c.Args[i] = "http=" + addr
		c.Args = slices.Insert(c.Args, 0, c.Path, deprivedVerb, without)
		if os.Geteuid() == 0 {
			forEveryone(t, c)
		}
	}, append(args, "--", "daemon", "binds", addr)...)
}

// forEveryone lets another user use what the command uses.
func forEveryone(t *testing.T, c *exec.Cmd) {
	t.Helper()
	place := filepath.Dir(c.Args[slices.Index(c.Args, "--control")+1])
	for dir, mode := range map[string]os.FileMode{place: 0o777, filepath.Dir(filepath.Dir(c.Path)): 0o755} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
}

// freeAddr is one that nobody has.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
