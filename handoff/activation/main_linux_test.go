package activation

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// roleEnv makes this binary a child of the tests instead of running them: a
// process's pid, files from 3 and environment are what Inherit is about.
const roleEnv = "GAPLESS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); role {
	case "":
	case "shim":
		shim()
	default:
		reportInherited(role)
	}
	os.Exit(leaktest.Run(m, 0))
}

// shim becomes the role in GAPLESS_TEST_NEXT. It sets what only the process
// itself can know, where the test asked for it with "self".
func shim() {
	id, _ := pidfdID()
	for v, own := range map[string]string{
		"LISTEN_PID":     strconv.Itoa(os.Getpid()),
		"LISTEN_PIDFDID": strconv.FormatUint(id, 10),
	} {
		if os.Getenv(v) == "self" {
			os.Setenv(v, own)
		}
	}
	os.Setenv(roleEnv, os.Getenv("GAPLESS_TEST_NEXT"))
	err := syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// childReport is what a child saw. Errors are text.
type childReport struct {
	Err         string
	Names       []string
	Addrs       []string
	Variables   []string // LISTEN_* that are left
	Inheritable []string // of the files passed, those that a grandchild would get
	Listening   []int    // of the files passed, the numbers that are still listeners
	Grandchild  string   // its environment
	Again       string   // what a second Inherit gave
}

func reportInherited(role string) {
	var r childReport
	switch name, ok := strings.CutPrefix(role, "listen:"); {
	case ok:
		r.listen(name)
	case role == "files":
		r.files()
	default:
		r.inherit()
	}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "LISTEN_") {
			r.Variables = append(r.Variables, v)
		}
	}
	r.lookAtFiles()
	out, err := exec.Command("env").Output()
	if err != nil {
		r.Err += err.Error()
	}
	r.Grandchild = string(out)
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func (r *childReport) inherit() {
	in, err := Inherit()
	if err != nil {
		r.Err = err.Error()
		return
	}
	r.Names = in.Names()
	again, err := Inherit()
	r.Again = fmt.Sprint(again.Names(), err)
	for _, ln := range in.Listeners() {
		r.Addrs = append(r.Addrs, ln.Addr().String())
		ln.Close()
	}
}

func (r *childReport) files() {
	files, err := Files()
	for _, f := range files {
		r.Names = append(r.Names, fmt.Sprint(f.FD, f.Name))
	}
	if err != nil {
		r.Err = err.Error()
	}
	again, err := Files()
	r.Again = fmt.Sprint(again, err)
}

func (r *childReport) listen(name string) {
	ln, err := Listen(name, "tcp", "127.0.0.1:0")
	if err != nil {
		r.Err = err.Error()
		return
	}
	r.Addrs = append(r.Addrs, ln.Addr().String())
	second, err := Listen("second", "tcp", "127.0.0.1:0")
	if err != nil {
		r.Err = err.Error()
		return
	}
	r.Addrs = append(r.Addrs, second.Addr().String())
}

func (r *childReport) lookAtFiles() {
	for fd := firstFD; fd < firstFD+2; fd++ { // no test passes more
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil {
			continue
		}
		if flags&unix.FD_CLOEXEC == 0 {
			to, _ := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
			r.Inheritable = append(r.Inheritable, fmt.Sprint(fd, " ", to))
		}
		if checkListener(fd) == nil {
			r.Listening = append(r.Listening, fd)
		}
	}
}
