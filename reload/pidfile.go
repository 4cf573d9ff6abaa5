package reload

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// writePIDFile names the live generation's main process, so that whoever follows
// the file always reads a whole number.
func (s *Service) writePIDFile(pid int) {
	if s.cfg.PIDFile == "" {
		return
	}
	if err := writeFile(s.cfg.PIDFile, strconv.Itoa(pid)+"\n"); err != nil {
		s.report("pid-file.failed", 0, err)
		return
	}
	s.pidWritten = pid
}

// removePIDFile when the process that it names has ended. It leaves a file alone
// that has another's pid by now.
func (s *Service) removePIDFile(pid int) {
	if s.pidWritten == 0 || s.pidWritten != pid {
		return
	}
	s.pidWritten = 0
	b, err := os.ReadFile(s.cfg.PIDFile)
	if err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(pid) {
		err = os.Remove(s.cfg.PIDFile)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.report("pid-file.failed", 0, err)
	}
}

func writeFile(path, text string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return fmt.Errorf("can't write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("can't write %s: %w", path, err)
		}
	}()
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
