package reload

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// pidFileAgain is how soon a file that could not be written is tried again.
const pidFileAgain = time.Second

// writePIDFile names the live generation's main process, so that whoever follows
// the file always reads a whole number. While it can't be written (the disk is full)
// the old one stays, as long as the process that it names; that is tried again and again,
// and told once.
func (s *Service) writePIDFile(pid int) {
	if s.cfg.PIDFile == "" {
		return
	}
	err := writeFile(s.cfg.PIDFile, strconv.Itoa(pid)+"\n")
	if err == nil {
		s.pidWritten, s.pidFailing = pid, false
		return
	}
	if !s.pidFailing {
		s.emit(event{kind: "pid-file.failed", level: levelError, text: fmt.Sprintf("%s: %s", s.cfg.Name, because(err))})
	}
	s.pidFailing = true
	s.stopTimer(&s.pidFile)
	s.pidFile = s.after(pidFileAgain, func() {
		if live := s.st.Live(); live != nil && live.PID == pid && s.pidWritten != pid {
			s.writePIDFile(pid)
		}
	})
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
