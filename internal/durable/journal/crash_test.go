package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

var errCrash = errors.New("the machine is off")

// machine is a System that stops at one of its calls. What was written and not synced by then is on
// the disk in part: any of its sectors may be missing.
type machine struct {
	calls    int // that still work
	off      bool
	random   *rand.Rand
	unsynced []unsynced
}

// unsynced is a sector as it was before a write that is not synced.
type unsynced struct {
	file   *os.File
	off    int64
	before []byte
}

// step reports whether the machine works.
func (m *machine) step() error {
	if m.off {
		return errCrash
	}
	if m.calls--; m.calls < 0 {
		m.crash()
		return errCrash
	}
	return nil
}

// crash undoes some of what was not synced.
func (m *machine) crash() {
	m.off = true
	lose := m.random.IntN(4) // nothing, all, or a part
	for i := len(m.unsynced) - 1; i >= 0; i-- {
		u := m.unsynced[i]
		if lose > 0 && (lose == 1 || m.random.IntN(2) == 0) {
			if _, err := u.file.WriteAt(u.before, u.off); err != nil && !errors.Is(err, fs.ErrClosed) {
				panic(err)
			}
		}
	}
}

// WriteAt implements System.
func (m *machine) WriteAt(f *os.File, b []byte, off int64) error {
	broken := !m.off && m.calls == 0
	if broken {
		m.calls++ // it stops in the middle of this write
	}
	if err := m.step(); err != nil {
		return err
	}
	for at := 0; at < len(b); at += sectorSize {
		before := make([]byte, sectorSize)
		if _, err := f.ReadAt(before, off+int64(at)); err == nil {
			m.unsynced = append(m.unsynced, unsynced{f, off + int64(at), before})
		}
	}
	if err := (OS{}).WriteAt(f, b, off); err != nil {
		return err
	}
	if broken {
		m.crash()
		return errCrash
	}
	return nil
}

// Sync implements System.
func (m *machine) Sync(f *os.File) error {
	if err := m.step(); err != nil {
		return err
	}
	kept := m.unsynced[:0]
	for _, u := range m.unsynced {
		if u.file != f {
			kept = append(kept, u)
		}
	}
	m.unsynced = kept
	return nil
}

// SyncDir implements System.
func (m *machine) SyncDir(string) error { return m.step() }

// Rename implements System.
func (m *machine) Rename(from, to string) error {
	if err := m.step(); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// Remove implements System.
func (m *machine) Remove(path string) error {
	if err := m.step(); err != nil {
		return err
	}
	return os.Remove(path)
}

// TestCrash switches the machine off at every call of the system. What was acknowledged is there
// when the journal is opened again, and nothing else than the batch that was being written. Each
// start is switched off too.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	crashes, seeds := 0, uint64(12)
	if *long {
		seeds = 200
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(seed, 1))
		dir := disktest.MemDir(t)
		must(t, Create(dir, testID, 1, nil))
		largest := []int64{0, smallest}[seed%2] // with small segments each is made of one before
		acked, from := 0, uint64(1)
		end := Position{}
		for range 30 {
			m := &machine{calls: random.IntN(300), random: random}
			if random.IntN(3) == 0 {
				m.calls = random.IntN(4) // at the start, or soon after
			}
			j, got, err := open(t, dir, Options{From: from, Known: end, Sys: m, Largest: largest})
			if errors.Is(err, errCrash) {
				crashes++
				continue
			}
			must(t, err)
			first := acked - len(got) + 1
			if j.End().Number != end.Number && len(got) > 0 && string(got[len(got)-1]) == string(body(acked+1)) {
				acked, first = acked+1, first+1 // the batch that was being written is there
			}
			want(t, got, first, acked)
			acked, from, end = use(t, j, acked, random)
			if m.off {
				crashes++
			}
			_ = j.Close()
			for _, u := range tmpFiles(t, dir) {
				must(t, os.Remove(u))
			}
		}
	}
	t.Logf("%d crashes in %d series; -long makes 200 series", crashes, seeds)
}

// A torn batch is followed by one that is shorter. Nothing of the torn one may be left behind it.
func TestTornBatch(t *testing.T) {
	j, dir := create(t, Options{})
	fill(t, j, 1, 5) // the last has many sectors
	must(t, j.Close())
	path := filepath.Join(dir, nameOf(1))
	b := disktest.FileBytes(t, path)
	clear(b[(j.at-5)*sectorSize:][:sectorSize])
	disktest.Put(t, path, b)
	j, got, err := open(t, dir, Options{})
	must(t, err)
	want(t, got, 1, 4)
	short := []byte("short")
	_, err = add(j, short)
	must(t, err)
	must(t, j.Close())
	_, got, err = open(t, dir, Options{})
	must(t, err)
	disktest.Diff(t, short, got[len(got)-1])
	want(t, got[:4], 1, 4)
}

// use appends batches and removes segments until the machine is off, or for a while. It returns the
// last batch that was acknowledged, the first segment and the end.
func use(t *testing.T, j *Journal, acked int, random *rand.Rand) (int, uint64, Position) {
	t.Helper()
	from, _ := j.Segments()
	end := j.End()
	for range 60 {
		var err error
		switch {
		case random.IntN(10) == 0:
			err = j.Prepare(0)
		case random.IntN(20) == 0:
			_, current := j.Segments()
			from = max(from, current-min(current-1, 1))
			err = j.Remove(from, nil)
		default:
			if _, err = add(j, body(acked+1)); err == nil {
				acked, end = acked+1, j.End()
			}
		}
		if errors.Is(err, errCrash) {
			return acked, from, end
		}
		must(t, err)
	}
	return acked, from, end
}

func tmpFiles(t *testing.T, dir string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	must(t, err)
	return left
}

// failing is a System of which one call fails.
type failing struct {
	OS
	calls int // before the one that fails
	err   error
	short bool // a write that fails has written half
}

func (s *failing) fails() bool { s.calls--; return s.calls == -1 }

// WriteAt implements System.
func (s *failing) WriteAt(f *os.File, b []byte, off int64) error {
	if s.fails() {
		if s.short {
			if err := s.OS.WriteAt(f, b[:len(b)/2/sectorSize*sectorSize], off); err != nil {
				return err
			}
		}
		return s.err
	}
	return s.OS.WriteAt(f, b, off)
}

// Sync implements System.
func (s *failing) Sync(f *os.File) error {
	if s.fails() {
		return s.err
	}
	return s.OS.Sync(f)
}

// SyncDir implements System.
func (s *failing) SyncDir(path string) error {
	if s.fails() {
		return s.err
	}
	return s.OS.SyncDir(path)
}

// Rename implements System.
func (s *failing) Rename(from, to string) error {
	if s.fails() {
		return s.err
	}
	return s.OS.Rename(from, to)
}

// Remove implements System.
func (s *failing) Remove(path string) error {
	if s.fails() {
		return s.err
	}
	return s.OS.Remove(path)
}

// TestFailingDisk has every call of the system fail once. The caller gets that error, and what was
// acknowledged is there when the journal is opened again.
func TestFailingDisk(t *testing.T) {
	for _, cause := range []failing{{err: syscall.EIO}, {err: syscall.ENOSPC}, {err: syscall.ENOSPC, short: true}} {
		t.Run(fmt.Sprint(cause.err, cause.short), func(t *testing.T) {
			for n, failed := 0, true; failed; n++ {
				dir := disktest.MemDir(t)
				must(t, Create(dir, testID, 1, nil))
				sys := cause
				sys.calls = n
				acked := 0
				j, _, err := open(t, dir, Options{Sys: &sys, Largest: smallest})
				for err == nil && acked < 60 {
					if _, err = add(j, body(acked+1)); err == nil {
						acked++
					}
				}
				if err == nil {
					err = j.Remove(2, nil)
				}
				if failed = err != nil; failed && !errors.Is(err, cause.err) {
					t.Fatalf("call %d: %v", n, err)
				}
				if j != nil {
					must(t, j.Close())
				}
				from := uint64(1)
				if acked == 60 {
					from = 2
				}
				_, got, err := open(t, dir, Options{From: from})
				must(t, err)
				if len(got) > 0 && len(got) > acked && from == 1 {
					got = got[:acked] // its sync failed, and it is there
				}
				want(t, got, acked-len(got)+1, acked)
			}
		})
	}
}
