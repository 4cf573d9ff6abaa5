package reload

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// doomed is a service whose shims meet the fate that is written to file.
func doomed(t *testing.T) (f *fixture, file string) {
	file = filepath.Join(t.TempDir(), "fate")
	cfg := config(t)
	cfg.Shim = []string{"/proc/self/exe", "__doomedshim", file}
	f = start(t, cfg)
	f.until("generation 1", live(1))
	return f, file
}

func doom(s syscall.Signal, after time.Duration) string {
	return fmt.Sprintf("%d %d", int(s), int64(after))
}

// A shim that is killed between fork and exec, before it has its order or with the
// listeners in its hands, costs one reload, which says so at once; or it was too late.
func TestShimIsKilled(t *testing.T) {
	t.Parallel()
	f, file := doomed(t)
	stop := f.load()
	before := f.until("generation 1 alone", alone)
	failed := 0
	for after := time.Duration(0); after < 8*time.Millisecond; after += 500 * time.Microsecond {
		write(t, file, doom(syscall.SIGKILL, after))
		began := time.Now()
		_, err := f.reload()
		if err == nil {
			continue
		}
		failed++
		fault := failure(t, err)
		if fault.Code != CodeFailed && fault.Code != CodeNotReady || !strings.Contains(fault.Reason, "the shim did not finish") && !strings.Contains(fault.Reason, "killed by SIGKILL") {
			t.Errorf("killed after %s: %#v", after, fault)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("killed after %s, the answer took %s", after, took)
		}
	}
	if failed == 0 {
		t.Error("none was killed")
	}
	os.Remove(file)
	f.mustReload()
	st := f.until("the new one alone", alone)
	stop()
	if st.Relayed != before.Relayed {
		t.Errorf("%d clients were relayed", st.Relayed)
	}
}

// One that is stopped between fork and exec is given its time, and killed.
func TestShimIsStopped(t *testing.T) {
	t.Parallel()
	if os.Getenv("GAPLESS_LONG") == "" {
		t.Skip("takes 20 s; GAPLESS_LONG=1 runs it")
	}
	f, file := doomed(t)
	stop := f.load()
	write(t, file, doom(syscall.SIGSTOP, 0))
	_, err := f.reload()
	if fault := failure(t, err); fault.Code != CodeFailed || !strings.Contains(fault.Reason, "the shim did not finish: can't receive message: it was given 20s") {
		t.Errorf("%#v", fault)
	}
	os.Remove(file)
	f.mustReload()
	stop()
}
