package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gapless-dev/gapless"

// room is one of the design's; only the rooms below it may be imported.
type room struct {
	path   string
	may    []string // besides itself and what is in it
	reason string
}

func rooms() []room {
	return []room{
		{"handoff/activation", nil, "a daemon imports it, and must not get a restart manager with it"},
		{"handoff", nil, "sockets know no daemon and no policy"},
		{"reload", []string{"handoff"}, "generations stand on sockets; what they say to the data path is a type in handoff"},
		{"proxy", []string{"handoff"}, "the data path stands on sockets; what it says to generations is a type in handoff"},
		{"bench", []string{"reload", "proxy", "handoff", "handoff/activation"}, "it measures the others"},
		{"cmd", []string{"bench", "reload", "proxy", "handoff", "handoff/activation"}, "it is wiring, and nothing imports it"},
	}
}

// TestImports holds the design's rule: imports run one way,
// cmd → bench, reload, proxy → handoff.
func TestImports(t *testing.T) {
	packages := modulePackages(t)
	if len(packages) < 10 {
		t.Fatalf("only %d packages found: what is checked here?", len(packages))
	}
	for _, p := range packages {
		for _, fault := range faults(p.ImportPath, p.Imports) {
			t.Error(fault)
		}
	}
}

func TestImportsFindsFaults(t *testing.T) {
	for _, c := range [][2]string{
		{"handoff", "reload/state"}, {"handoff/conns", "reload"}, {"reload", "proxy"}, {"proxy", "reload/control"},
		{"handoff/activation", "handoff"}, {"reload/spawn", "cmd/gapless"}, {"bench", "cmd/gapless"}, {"elsewhere", "handoff"},
	} {
		if len(faults(module+"/"+c[0], []string{"fmt", module + "/" + c[1]})) != 1 {
			t.Errorf("%s may import %s", c[0], c[1])
		}
	}
	for _, c := range [][2]string{
		{"cmd/gapless", "proxy"}, {"cmd/gapless", "reload/control"}, {"reload", "handoff/conns"}, {"reload/control", "reload"}, {"bench", "reload"},
	} {
		if f := faults(module+"/"+c[0], []string{module + "/" + c[1]}); len(f) != 0 {
			t.Errorf("%v", f)
		}
	}
}

func faults(path string, imports []string) []string {
	var all []string
	for _, i := range imports {
		target, ours := strings.CutPrefix(i, module)
		if !ours {
			continue
		}
		from, known := roomOf(path)
		if !known {
			return []string{fmt.Sprintf("%s is in no room of the design", path)}
		}
		to, _ := roomOf(module + target)
		if to.path != from.path && !slices.Contains(from.may, to.path) {
			all = append(all, fmt.Sprintf("%s imports %s: %s", path, i, from.reason))
		}
	}
	return all
}

// roomOf is the first that holds the package: inner rooms come first.
func roomOf(path string) (room, bool) {
	path = strings.TrimPrefix(path, module+"/")
	for _, r := range rooms() {
		if path == r.path || strings.HasPrefix(path, r.path+"/") {
			return r, true
		}
	}
	return room{}, false
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func modulePackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
