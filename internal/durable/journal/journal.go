package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/meter"
)

// ErrGone is returned by ReadAt for a place in a segment that was removed.
var ErrGone = errors.New("the segment was removed")

// Place is where something is in a journal.
type Place struct {
	Segment uint64 // its number
	at      int64  // sector of the batch, times sectorRoom, plus the offset in the batch
}

// Options say how to open a journal. Dir and ID are needed.
type Options struct {
	Dir   string   // where the segments are
	ID    uint64   // of the journal
	From  uint64   // the first segment
	Known Position // the journal must reach at least that far
	Sys   System   // nil: this machine's

	// Synced is told how long each sync of a batch took. Nil: nothing is.
	Synced *meter.Histogram

	// Largest is the size of the segments that the journal uses in the long run. 0: 8 MiB.
	Largest int64

	// Stop is closed before Close is called. Remove then ends early, without an error: the rest is
	// removed when the journal is opened again. Nil: it never does.
	Stop <-chan struct{}

	// Added is called with the path of each segment that is used from now on, Removed before one
	// is removed or replaced. Nil: they are not called.
	Added   func(path string) error
	Removed func(path string)
}

// Journal is an open journal. One goroutine at a time may call Append, Fits, Fresh, HalfFull, End
// and Next, and one Remove. The other methods may be called by any goroutine.
type Journal struct {
	o   Options
	end Position // belongs to the goroutine that appends, with the next three
	cur *segment
	at  int // the next sector of cur
	buf []byte

	eraser    eraser
	preparing chan struct{} // holds a token while a goroutine makes the next segment

	mu     sync.Mutex
	segs   []*segment // without the spare; the last is cur
	spare  *segment   // the next segment; nil: there is none yet
	blanks []string   // erased files of the largest size
}

// Create makes a journal of one empty segment. Segments that are there already are removed.
func Create(dir string, id, from uint64, sys System) error {
	if sys == nil {
		sys = OS{}
	}
	if err := RemoveAll(dir); err != nil {
		return err
	}
	s, err := makeSegment(&eraser{sys: sys}, dir, segment{id: id, number: from, size: smallest}, "")
	if err != nil {
		return err
	}
	return s.file.Close()
}

// RemoveAll removes all segments in a directory.
func RemoveAll(dir string) error {
	all, err := numbers(dir)
	for _, n := range all {
		err = errors.Join(err, os.Remove(filepath.Join(dir, nameOf(n))))
	}
	return err
}

// Open reads a journal from its first segment on, and opens it for appending. each gets the content
// of every batch in order, and its place. The error is a diskfile.DamagedError, the system's, or
// each's. What a torn write has left is made zero, and older segments are removed.
func Open(o Options, each func(p Place, body []byte) error) (j *Journal, err error) {
	if o.Sys == nil {
		o.Sys = OS{}
	}
	o.Largest = cmp.Or(o.Largest, largest)
	j = &Journal{o: o, preparing: make(chan struct{}, 1), eraser: eraser{sys: o.Sys, stop: o.Stop}}
	last, err := j.scan(diskfile.OpenKept, each)
	if err == nil && last.torn > 0 {
		b := make([]byte, last.torn*sectorSize)
		if err = o.Sys.WriteAt(last.file, b, int64(last.at)*sectorSize); err == nil {
			err = o.Sys.Sync(last.file)
		}
	}
	if err == nil {
		err = j.removeOld()
	}
	for _, s := range j.all() {
		if err == nil && o.Added != nil {
			err = o.Added(s.path)
		}
	}
	if err != nil {
		_ = j.Close()
		return nil, err
	}
	return j, nil
}

// Read is Open for a reader that changes nothing.
func Read(dir string, id, from uint64, each func(p Place, body []byte) error) (bytes int64, err error) {
	j := &Journal{o: Options{Dir: dir, ID: id, From: from}}
	defer j.Close()
	_, err = j.scan(os.Open, each)
	return j.Bytes(), err
}

// scan opens and reads all segments. It returns how the newest one ends.
func (j *Journal) scan(open func(string) (*os.File, error), each func(Place, []byte) error) (*scan, error) {
	all, err := numbers(j.o.Dir)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(n uint64) bool { return n < j.o.From })
	var last *scan
	for i, n := 0, j.o.From; ; i, n = i+1, n+1 {
		if i == len(all) || all[i] != n {
			if i == len(all) && last != nil && !last.done {
				break
			}
			return nil, &diskfile.DamagedError{Path: j.o.Dir, Reason: "the part " + nameOf(n) + " of the raft log is missing"}
		}
		s, err := openSegment(j.o.Dir, j.o.ID, n, open)
		if err != nil {
			return nil, err
		}
		j.segs = append(j.segs, s)
		if err := diskfile.ReadFromDisk(s.file); err != nil {
			return nil, err
		}
		if last != nil && !last.done { // s is the spare
			return last, j.takeSpare(s, last, len(all)-i-1)
		}
		if last, err = s.read(j.end, i == 0, func(at int, body []byte) error {
			return each(Place{n, int64(at)*sectorRoom + batchHead}, body)
		}); err != nil {
			return nil, err
		}
		j.end, j.cur, j.at = last.end, s, last.at
	}
	return last, j.checkKnown(last)
}

// takeSpare checks the segment behind the newest one: it is empty, and there is no other.
func (j *Journal) takeSpare(s *segment, last *scan, more int) error {
	r, err := s.read(j.end, false, func(int, []byte) error { return diskfile.Damaged("the segment before it has no end") })
	if err != nil {
		return err
	}
	if r.torn > 0 || more > 0 {
		return diskfile.Named(last.path, diskfile.Damaged("it has no end, and others follow"))
	}
	j.segs, j.spare = j.segs[:len(j.segs)-1], s
	return j.checkKnown(last)
}

// checkKnown reports whether the journal reaches as far as this process knows.
func (j *Journal) checkKnown(last *scan) error {
	known := j.o.Known
	if j.end.Number < known.Number || j.end.Number == known.Number && j.end != known {
		return diskfile.Named(last.path, diskfile.Damaged(
			"it ends with batch %d, and this process has written batch %d", j.end.Number, known.Number))
	}
	return nil
}

// removed tells Options.Removed.
func (j *Journal) removed(path string) {
	if j.o.Removed != nil {
		j.o.Removed(path)
	}
}

// all returns all segments, the spare included.
func (j *Journal) all() []*segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := slices.Clone(j.segs)
	if j.spare != nil {
		all = append(all, j.spare)
	}
	return all
}

// Close closes the files.
func (j *Journal) Close() error {
	var errs []error
	for _, s := range j.all() {
		errs = append(errs, s.file.Close())
	}
	for _, blank := range j.blanks {
		_ = os.Remove(blank) // else Dir.Probe does
	}
	j.blanks = nil
	return errors.Join(errs...)
}

// End returns the end of the journal.
func (j *Journal) End() Position { return j.end }

// Path returns the path of the segment that is written.
func (j *Journal) Path() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.segs[len(j.segs)-1].path
}

// Bytes returns the size of all segments. Blanks do not count.
func (j *Journal) Bytes() (n int64) {
	for _, s := range j.all() {
		n += s.size
	}
	return n
}

// Size returns the size of all files.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	blanks := int64(len(j.blanks))
	j.mu.Unlock()
	return j.Bytes() + blanks*j.o.Largest
}

// Segments returns the numbers of the first segment and of the one that is written.
func (j *Journal) Segments() (first, current uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.segs[0].number, j.segs[len(j.segs)-1].number
}

// Fits reports whether a batch of that size fits into the segment that is written. One sector is
// kept for the batch that ends the segment.
func (j *Journal) Fits(size int) bool { return j.at+sectors(batchHead+size)+1 <= j.cur.sectors() }

// Fresh reports whether the segment that is written has no batch yet.
func (j *Journal) Fresh() bool { return j.at == 1 }

// HalfFull reports whether the segment that is written is half full, and the next is not made yet.
func (j *Journal) HalfFull() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.spare == nil && j.at > j.cur.sectors()/2
}

// Append writes a batch and makes it durable. It returns where its content is. The batch must fit.
// After an error nothing more may be appended.
func (j *Journal) Append(body []byte) (Place, error) {
	at := j.at
	if err := j.append(0, body); err != nil {
		return Place{}, err
	}
	return Place{j.cur.number, int64(at)*sectorRoom + batchHead}, nil
}

func (j *Journal) append(flags byte, body []byte) error {
	if len(body) > MaxBatch { // Open could not read it
		return fmt.Errorf("a batch of %d bytes is too large", len(body))
	}
	h := newHeader(j.end, flags, body)
	j.buf = j.cur.put(j.buf[:0], j.at, h.end.Number, h.encode(), body)
	if err := j.o.Sys.WriteAt(j.cur.file, j.buf, int64(j.at)*sectorSize); err != nil {
		return err
	}
	began := time.Now()
	if err := j.o.Sys.Sync(j.cur.file); err != nil {
		return err
	}
	if j.o.Synced != nil {
		j.o.Synced.Observe(time.Since(began))
	}
	j.at += len(j.buf) / sectorSize
	j.end = h.end
	if cap(j.buf) > 1<<20 {
		j.buf = nil
	}
	return nil
}

// Next ends the current segment and goes on in the next one, in which a batch of that size fits.
func (j *Journal) Next(size int) error {
	if err := j.Prepare(size); err != nil {
		return err
	}
	if err := j.append(continues, nil); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cur, j.at = j.spare, 1
	j.segs, j.spare = append(j.segs, j.spare), nil
	return nil
}

// Prepare makes the next segment, unless there is one already. A batch of that size will fit.
func (j *Journal) Prepare(size int) error {
	j.preparing <- struct{}{}
	defer func() { <-j.preparing }()
	j.mu.Lock()
	spare, cur := j.spare, j.segs[len(j.segs)-1]
	j.mu.Unlock()
	need := int64(1+sectors(batchHead+size)+1) * sectorSize
	if spare != nil && spare.size >= need {
		return nil
	}
	if spare != nil { // the new one takes its place, or nothing does
		j.setSpare(nil)
		j.removed(spare.path)
		_ = spare.file.Close()
	}
	next := segment{id: j.o.ID, number: cur.number + 1, size: max(min(2*cur.size, j.o.Largest), need)}
	s, err := makeSegment(&j.eraser, j.o.Dir, next, j.takeBlank(next.size))
	if errors.Is(err, fs.ErrNotExist) { // somebody has removed the blank
		s, err = makeSegment(&j.eraser, j.o.Dir, next, "")
	}
	if err != nil {
		return fmt.Errorf("make the next segment: %w", err)
	}
	j.setSpare(s)
	if j.o.Added != nil {
		return j.o.Added(s.path)
	}
	return nil
}

func (j *Journal) setSpare(s *segment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.spare = s
}

// Remove removes the segments before the given one. Their content is overwritten first, which may
// take a while: between is called before each of them, unless it is nil.
func (j *Journal) Remove(before uint64, between func()) error {
	for {
		j.mu.Lock()
		s := j.segs[0]
		if s.number >= before || len(j.segs) == 1 {
			j.mu.Unlock()
			return nil
		}
		j.segs = slices.Delete(slices.Clone(j.segs), 0, 1)
		j.mu.Unlock()
		if between != nil {
			between()
		}
		// If many wait, others fill the disk faster than a patient eraser empties it.
		err := j.eraser.erase(s.file, s.size, before-s.number <= maxBlanks)
		if err == nil {
			j.removed(s.path)
		}
		if cerr := s.file.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = j.retire(s)
		}
		if errors.Is(err, errStopped) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// ReadAt reads size bytes of a batch's content, from the offset off on. at is the place of the
// content. Each sector is checked. The error is a diskfile.DamagedError, ErrGone or the system's.
func (j *Journal) ReadAt(at Place, off, size int) ([]byte, error) {
	j.mu.Lock()
	i := slices.IndexFunc(j.segs, func(s *segment) bool { return s.number == at.Segment })
	if i < 0 {
		j.mu.Unlock()
		return nil, ErrGone
	}
	s := j.segs[i]
	j.mu.Unlock()
	begin := at.at + int64(off)
	first, last := int(begin/sectorRoom), int((begin+int64(size)+sectorRoom-1)/sectorRoom)
	b := make([]byte, (last-first)*sectorSize)
	_, err := s.file.ReadAt(b, int64(first)*sectorSize)
	out := make([]byte, 0, (last-first)*sectorRoom)
	for i := first; err == nil && i < last; i++ {
		sector := b[(i-first)*sectorSize:][:sectorSize]
		if isZero(sector) || !s.isRight(sector, i) {
			err = diskfile.Named(s.path, diskfile.Damaged("sector %d is wrong", i))
		}
		out = append(out, content(sector)...)
	}
	if err != nil {
		if first, _ := j.Segments(); at.Segment < first {
			return nil, ErrGone
		}
		return nil, err
	}
	skip := int(begin % sectorRoom)
	return out[skip : skip+size : skip+size], nil
}
