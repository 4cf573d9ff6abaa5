package control

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Try finds out whether a holder could have a control socket here: it makes one, by a name
// that is no service's, and removes it, with the directories that were not there before.
func (d Directory) Try(ctx context.Context) error {
	for _, dir := range d.missing() {
		defer os.Remove(dir) // stays if somebody else uses it by now
	}
	if err := d.Make(); err != nil {
		return err
	}
	s, err := Listen(ctx, filepath.Join(d.Path, ".doctor-"+strconv.Itoa(os.Getpid())))
	if err != nil {
		return err
	}
	return s.Remove()
}

// missing directories, the outermost first: deferred calls run the other way round.
func (d Directory) missing() []string {
	var dirs []string
	for dir := d.Path; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			return dirs
		}
		dirs = append([]string{dir}, dirs...)
	}
}
