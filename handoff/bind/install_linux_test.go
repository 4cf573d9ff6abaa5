package bind

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// decide runs a filter over one system call, as the kernel would.
func decide(t *testing.T, p []unix.SockFilter, arch, nr uint32) uint32 {
	t.Helper()
	var d [64]byte
	binary.NativeEndian.PutUint32(d[0:], nr)
	binary.NativeEndian.PutUint32(d[4:], arch)
	var a uint32
	for i := 0; i < len(p); i++ {
		switch in := p[i]; in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = binary.NativeEndian.Uint32(d[in.K:])
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if a == in.K {
				i += int(in.Jt)
			} else {
				i += int(in.Jf)
			}
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		default:
			t.Fatalf("instruction %#x", in.Code)
		}
	}
	t.Fatal("no answer")
	return 0
}

func TestProgram(t *testing.T) {
	const i386, x32 = unix.AUDIT_ARCH_I386, 0x40000000
	for _, arch := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_AARCH64} {
		p := program(arch)
		for nr := range uint32(1000) {
			want := uint32(unix.SECCOMP_RET_ALLOW)
			if nr == unix.SYS_BIND || nr == unix.SYS_LISTEN {
				want = unix.SECCOMP_RET_USER_NOTIF
			}
			if got := decide(t, p, arch, nr); got != want {
				t.Errorf("call %d: %#x", nr, got)
			}
			for _, pass := range [][2]uint32{{i386, nr}, {arch, nr | x32}, {arch ^ 1, nr}} {
				if got := decide(t, p, pass[0], pass[1]); got != unix.SECCOMP_RET_ALLOW {
					t.Errorf("call %#x of %#x: %#x", pass[1], pass[0], got)
				}
			}
		}
	}
}

// no_new_privs is set where it must be, and only there.
func TestNoNewPrivs(t *testing.T) {
	d := start(t, setup{})
	if privileged := os.Geteuid() == 0; d.noNewPrivs == privileged {
		t.Errorf("no_new_privs was set: %v; root: %v", d.noNewPrivs, privileged)
	}
}

// There is one filter in a chain that notifies, and whoever wants another is told, and
// has not paid with no_new_privs for it.
func TestSecondFilter(t *testing.T) {
	uids := []int{0}
	if os.Geteuid() == 0 {
		uids = append(uids, 65534)
	}
	for _, uid := range uids {
		d := start(t, setup{uid: uid})
		words := strings.SplitN(d.do(t, "install"), " ", 3)
		nnp := map[bool]string{true: "1", false: "0"}[d.noNewPrivs]
		if words[0] != "true" || words[1] != nnp || !strings.Contains(words[2], "the kernel takes only one") {
			t.Errorf("as %d: %q, no_new_privs before %s", uid, words, nnp)
		}
		if got := d.do(t, "probe"); !strings.Contains(got, "the kernel takes only one") {
			t.Errorf("as %d, probing: %s", uid, got)
		}
	}
}

// A probe leaves no trace.
func TestProbe(t *testing.T) {
	for range 20 {
		must(t, Probe())
	}
	b, err := os.ReadFile("/proc/self/status")
	must(t, err)
	if !strings.Contains(string(b), "Seccomp:\t0") || !strings.Contains(string(b), "NoNewPrivs:\t0") {
		t.Errorf("its main thread has a filter:\n%s", b)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
}

// elsewhere is never the main thread, even if that is where goroutines begin.
func TestElsewhere(t *testing.T) {
	for range 200 {
		must(t, elsewhere(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("it is the main thread")
			}
			return nil
		}))
	}
}

func TestOldKernels(t *testing.T) {
	for release, want := range map[string]bool{
		"5.9.0": true, "5.10.0-20-amd64": true, "6.1.0": true, "6.18.44-fc-v669": true, "10.0": true,
		"5.8.18": false, "4.18.0-553.el8": false, "5": false, "": false,
	} {
		if got := hasAddFD(release); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}

func TestReasonsForNoFilter(t *testing.T) {
	for errno, want := range map[unix.Errno]string{unix.EBUSY: "takes only one", unix.ENOSYS: "no seccomp notification", unix.EINVAL: "no seccomp notification", unix.EPERM: "profile forbids", unix.ENOMEM: "cannot allocate"} {
		var u *UnavailableError
		if err := explain(errno); !errors.As(err, &u) || !errors.Is(err, errno) || !strings.Contains(u.Reason, want) {
			t.Errorf("%v: %v", errno, err)
		}
	}
	if _, ok := auditArch(); !ok && (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64") {
		t.Error("it is not made for this")
	}
}
