package reload

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// file is one content at the daemon's path.
type file struct {
	content     string
	script      bool
	overwritten bool
}

// deployment is what happens to the file at the daemon's path.
type deployment int

const (
	replaced deployment = iota
	replacedByScript
	overwritten
	removed
	deployments
)

func (w *world) deploy(how deployment) {
	path := filepath.Join(w.dir, "daemon")
	number := len(w.files) + 1
	next := &file{content: strconv.Itoa(number) + strings.Repeat(".", number), script: how == replacedByScript}
	if next.script {
		next.content = "#!" + next.content
	}
	var err error
	switch {
	case how == removed || how == overwritten && w.file == nil:
		os.Remove(path)
		w.file = nil
		return
	case how == overwritten: // another size, as two writes may be of one tick of the clock
		w.file.overwritten = true
		next.script = w.file.script
		err = os.WriteFile(path, []byte(next.content), 0o700)
	default:
		err = errors.Join(os.WriteFile(path+".new", []byte(next.content), 0o700), os.Rename(path+".new", path))
	}
	if err != nil {
		w.violate("can't deploy: %v", err)
	}
	w.file, w.files[next.content] = next, next
}
