package wan

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childMark makes the test binary a child that prints the names of the interfaces it sees.
const childMark = "WAN_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childMark) != "" {
		printInterfaces()
		return
	}
	os.Exit(runChecked(m))
}

// runChecked fails a passing run that leaves goroutines or files behind.
func runChecked(m *testing.M) int {
	warmUp()
	before := openFiles()
	code := m.Run()
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if after := openFiles(); len(after) > len(before) {
		fmt.Fprintf(os.Stderr, "open files before %v\nafter %v\n", before, after)
		return 1
	}
	return 0
}

// warmUp makes the runtime open what it keeps for good: the poller's files.
func warmUp() {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	r.SetReadDeadline(time.Now())
	r.Close()
	w.Close()
}

func openFiles() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var files []string
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil { // the directory's own fd is gone by now
			files = append(files, e.Name()+"="+target)
		}
	}
	return files
}

func printInterfaces() {
	names, err := interfaceNames()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(strings.Join(names, " "))
}

func interfaceNames() ([]string, error) {
	all, err := net.Interfaces()
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names, err
}
