package wan

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/gapless-dev/gapless/handoff/leaktest"
)

// childMark makes the test binary a child that prints the names of the interfaces it sees.
const childMark = "WAN_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childMark) != "" {
		printInterfaces()
		return
	}
	os.Exit(leaktest.Run(m, 0))
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
