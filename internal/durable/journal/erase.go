package journal

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

const (
	eraseBy   = 256 << 10 // zeros in one write
	maxBlanks = 2         // as many segments are usually removed at once
)

// errStopped says that Options.Stop was closed.
var errStopped = errors.New("the journal is being closed")

// eraser fills files with zeros.
type eraser struct {
	sys  System
	stop <-chan struct{} // closed when erasing ends early; nil: it never does
}

// fill fills a new file with zeros. Its size grows with each write, and one sync for all of them
// makes the file system write that once.
func (e *eraser) fill(f *os.File, size int64) error {
	return e.write(f, size, func(time.Time) error { return nil })
}

// erase overwrites a file with zeros. If patient is true it leaves the disk to others in between:
// one large write would delay the batches behind it. The error is errStopped, or the system's.
func (e *eraser) erase(f *os.File, size int64, patient bool) error {
	err := e.write(f, size, func(began time.Time) error {
		if !patient {
			return e.stopped()
		}
		if err := e.sys.Sync(f); err != nil {
			return err
		}
		select {
		case <-time.After(2 * time.Since(began)):
		case <-e.stop:
		}
		return e.stopped()
	})
	if err == nil && !patient {
		err = e.sys.Sync(f)
	}
	return err
}

func (e *eraser) stopped() error {
	select {
	case <-e.stop:
		return errStopped
	default:
		return nil
	}
}

// write writes zeros in several writes, and calls after behind each, with the time when it began.
func (e *eraser) write(f *os.File, size int64, after func(began time.Time) error) error {
	zero := make([]byte, min(eraseBy, size))
	for at := int64(0); at < size; at += eraseBy {
		began := time.Now()
		if err := e.sys.WriteAt(f, zero[:min(eraseBy, size-at)], at); err != nil {
			return err
		}
		if err := after(began); err != nil {
			return err
		}
	}
	return nil
}

// eraseOld is erase for the file of a segment that a crash has left, before the journal is used.
func (e *eraser) eraseOld(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err == nil {
		err = e.erase(f, fi.Size(), false)
	}
	return errors.Join(err, f.Close())
}

// retire removes the file of a segment that was erased and closed, or keeps it as a blank: the next
// segment can be made of that, which writes nothing but its head.
func (j *Journal) retire(s *segment) error {
	j.mu.Lock()
	keep := s.size == j.o.Largest && len(j.blanks) < maxBlanks
	j.mu.Unlock()
	if !keep {
		return j.eraser.sys.Remove(s.path)
	}
	blank := s.path + diskfile.TmpSuffix
	if err := j.eraser.sys.Rename(s.path, blank); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.blanks = append(j.blanks, blank)
	return nil
}

// takeBlank returns the path of a blank of that size, which belongs to the caller; empty: there is
// none.
func (j *Journal) takeBlank(size int64) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if size != j.o.Largest || len(j.blanks) == 0 {
		return ""
	}
	blank := j.blanks[0]
	j.blanks = j.blanks[1:]
	return blank
}

// removeOld removes the segments before the first, which a crash has left.
func (j *Journal) removeOld() error {
	all, err := numbers(j.o.Dir)
	for _, n := range all {
		if n < j.o.From && err == nil {
			path := filepath.Join(j.o.Dir, nameOf(n))
			j.removed(path)
			if err = j.eraser.eraseOld(path); err == nil {
				err = j.eraser.sys.Remove(path)
			}
		}
	}
	return err
}
