package activation

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
)

const (
	firstFD     = 3         // SD_LISTEN_FDS_START
	unknownName = "unknown" // what sd_listen_fds_with_names calls a file without a name
)

// environment is what the manager says through variables, and who we are.
type environment struct {
	lookup  func(string) (string, bool)
	pid     int
	pidfdID func() (uint64, bool) // false when this kernel has no such thing
}

func processEnvironment() environment {
	return environment{os.LookupEnv, os.Getpid(), pidfdID}
}

// clearEnvironment keeps the variables from grandchildren: they would be refused
// there by their pid, but a pid can come round again.
func clearEnvironment() error {
	var errs []error
	for _, v := range []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		errs = append(errs, os.Unsetenv(v))
	}
	return errors.Join(errs...)
}

// files returns how many files are meant for this process and their names: 0
// when the variables are missing or somebody else's. With an error after the
// count was read, the count is returned as well: those files are open.
func (e environment) files() (n int, names []string, err error) {
	ours, err := e.ours()
	if err != nil || !ours {
		return 0, nil, err
	}
	text, ok := e.lookup("LISTEN_FDS")
	if !ok {
		return 0, nil, nil
	}
	n, err = strconv.Atoi(text)
	if err != nil {
		return 0, nil, fmt.Errorf("LISTEN_FDS: %w", err)
	}
	if n <= 0 || n > math.MaxInt32-firstFD {
		return 0, nil, fmt.Errorf("LISTEN_FDS: %d is not a number of files", n)
	}
	names, err = e.names(n)
	return n, names, err
}

// ours compares LISTEN_PID and LISTEN_PIDFDID with this process.
func (e environment) ours() (bool, error) {
	text, ok := e.lookup("LISTEN_PID")
	if !ok {
		return false, nil
	}
	pid, err := strconv.Atoi(text)
	if err == nil && pid <= 0 {
		err = errors.New("not a process id")
	}
	if err != nil {
		return false, fmt.Errorf("LISTEN_PID: %w", err)
	}
	if pid != e.pid {
		return false, nil
	}
	text, ok = e.lookup("LISTEN_PIDFDID")
	if !ok {
		return true, nil
	}
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return false, fmt.Errorf("LISTEN_PIDFDID: %w", err)
	}
	own, known := e.pidfdID()
	return !known || own == id, nil
}

// names is nil when the manager has given none.
func (e environment) names(n int) ([]string, error) {
	text, ok := e.lookup("LISTEN_FDNAMES")
	if !ok {
		return nil, nil
	}
	var names []string
	if text != "" {
		names = strings.Split(text, ":")
	}
	if len(names) != n {
		return nil, fmt.Errorf("LISTEN_FDNAMES: %d names for %d files", len(names), n)
	}
	return names, nil
}

func nameOf(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return unknownName
}
