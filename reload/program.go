package reload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gapless-dev/gapless/reload/spawn"
	"github.com/gapless-dev/gapless/reload/state"
)

// program is the file that a generation was run from, kept open for as long as there
// may be a way back to it: a deploy replaces or removes what is at its path. The
// owner's; its methods may be called by others while it is open.
type program struct {
	state.Program
	file    *os.File // nil if it can't be read
	size    int64
	changed time.Time
	hashed  chan struct{} // closed when sum is there, or can't be had
	sum     string
}

// goneError says why there is no way back to a program.
type goneError struct{ reason string }

func (e *goneError) Error() string { return e.reason }

// newProgram owns what was reported.
func newProgram(p *spawn.Program, origin int) *program {
	k := &program{Program: state.Program{Path: p.Path, Dir: p.Dir, Origin: origin}, file: p.File, hashed: make(chan struct{})}
	if k.file == nil {
		return k
	}
	if info, err := k.file.Stat(); err == nil {
		k.size, k.changed = info.Size(), info.ModTime()
	}
	start := make([]byte, 2)
	k.file.ReadAt(start, 0)
	k.Script = string(start) == "#!"
	return k
}

// digest reads the whole file; it is for a goroutine of its own.
func digest(ctx context.Context, f *os.File, size int64) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, until{ctx, io.NewSectionReader(f, 0, size)}); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// until reads as long as the context lasts.
type until struct {
	ctx context.Context
	io.Reader
}

func (u until) Read(b []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.Reader.Read(b)
}

// choose finds what to run so that it is what ran before: the file at the path, if it
// is the same, else the one that was kept. It may read the whole file.
func (p *program) choose(ctx context.Context) (path string, file *os.File, err error) {
	if info, err := os.Stat(p.Dir); err != nil || !info.IsDir() {
		return "", nil, &goneError{fmt.Sprintf("its directory %s is not there any more", p.Dir)}
	}
	switch {
	case p.file == nil:
		return "", nil, &goneError{fmt.Sprintf("%s could not be read when it ran, so nobody knows whether it is still the same", p.Path)}
	case !p.same(ctx):
		return "", nil, &goneError{fmt.Sprintf("%s was overwritten", p.Path)}
	case p.atPath():
		return p.Path, nil, nil
	case p.Script:
		return "", nil, &goneError{fmt.Sprintf("%s is another file now, and a script can't be run from what was kept", p.Path)}
	}
	return p.Path, p.file, nil
}

// same tells whether the file is what it was.
func (p *program) same(ctx context.Context) bool {
	info, err := p.file.Stat()
	if err != nil {
		return false
	}
	if info.Size() == p.size && info.ModTime().Equal(p.changed) {
		return true
	}
	select {
	case <-p.hashed:
	case <-ctx.Done():
		return false
	}
	now, err := digest(ctx, p.file, info.Size())
	return err == nil && p.sum != "" && now == p.sum
}

func (p *program) atPath() bool {
	there, err := os.Stat(p.Path)
	if err != nil {
		return false
	}
	kept, err := p.file.Stat()
	return err == nil && os.SameFile(there, kept)
}

// programOf a generation; nil if it is not known.
func (s *Service) programOf(g *generation) *program { return s.programs[s.record(g).Program.Origin] }

// remember keeps what a generation runs, and finds its hash in the background.
func (s *Service) remember(g *generation, p *spawn.Program) {
	if p == nil {
		return
	}
	k := newProgram(p, g.number)
	s.programs[g.number] = k
	s.record(g).Program = k.Program
	if k.file == nil {
		return
	}
	s.wg.Go(func() {
		defer close(k.hashed)
		sum, err := digest(s.ctx, k.file, k.size)
		if err != nil {
			return // it was closed, as nobody needs it any more
		}
		k.sum = sum
		s.post(func() { s.hashed(k, sum) })
	})
}

func (s *Service) hashed(k *program, sum string) {
	k.Hash = sum
	for i := range s.st.Generations {
		if p := &s.st.Generations[i].Program; p.Origin == k.Origin {
			p.Hash = sum
		}
	}
	for _, way := range []*state.Way{s.st.Back, s.st.Fallen} {
		if way != nil && way.Program.Origin == k.Origin {
			way.Program.Hash = sum
		}
	}
}

// sweepPrograms closes what no way back needs any more.
func (s *Service) sweepPrograms() {
	needed := map[int]bool{s.st.Pinned: true}
	for _, way := range []*state.Way{s.st.Back, s.st.Fallen} {
		if way != nil {
			needed[way.Program.Origin] = true
		}
	}
	for _, g := range s.runs {
		needed[s.record(g).Program.Origin] = true
	}
	for origin, p := range s.programs {
		if needed[origin] {
			continue
		}
		if p.file != nil {
			p.file.Close()
		}
		delete(s.programs, origin)
	}
}
