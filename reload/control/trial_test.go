package control

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTryLeavesNothing(t *testing.T) {
	top := t.TempDir()
	d := Directory{Path: filepath.Join(top, "a", "b")}
	if err := d.Try(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(top); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	if err := d.Try(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(d.Path); err != nil || len(left) > 0 {
		t.Errorf("left behind in a directory that was there: %v, %v", left, err)
	}
}

func TestTryWhereNothingCanBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Directory{Path: file + "/run"}).Try(t.Context()); err == nil {
		t.Error("it was made below a file")
	}
}
