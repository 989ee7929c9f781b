package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

const (
	smallest = 64 << 10 // size of the first segment
	largest  = 8 << 20  // see Options.Largest; a batch may need more

	version = 1
)

// segment is one file of a journal.
type segment struct {
	id     uint64 // of the journal
	number uint64 // of the segment; they are consecutive
	path   string
	size   int64
	file   *os.File
}

// nameOf returns the name of a segment's file.
func nameOf(number uint64) string { return fmt.Sprintf("raft-%016x.log", number) }

// NumberOf returns the number of a segment with that file name; false if it is none.
func NumberOf(name string) (number uint64, ok bool) {
	hex, ok := strings.CutSuffix(name, ".log")
	if !ok {
		return 0, false
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(hex, "raft-"), 16, 64)
	return number, err == nil && nameOf(number) == name
}

// numbers returns the numbers of the segments in a directory, in order.
func numbers(dir string) (all []uint64, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries { // in the order of their names, which is that of the numbers
		if n, ok := NumberOf(e.Name()); ok {
			all = append(all, n)
		}
	}
	return all, err
}

// sectors returns the number of sectors of the file.
func (s *segment) sectors() int { return int(s.size / sectorSize) }

// head returns the segment's first sector.
func (s *segment) head() []byte {
	b := make([]byte, 0, 32)
	b = append(b, version)
	for _, v := range []uint64{s.id, s.number, uint64(s.size)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = s.put(nil, 0, 0, b, nil)
	b[0] = headKind
	s.sealSector(b, 0)
	return b
}

// checkHead reports whether the segment's first sector is b.
func (s *segment) checkHead(b []byte) error {
	size := binary.BigEndian.Uint64(content(b)[17:])
	switch {
	case !s.isRight(b, 0) || b[0] != headKind || content(b)[0] != version:
		return diskfile.Damaged("its first sector is wrong")
	case size != uint64(s.size):
		return diskfile.Damaged("it is %d bytes long, and was %d", s.size, size)
	}
	return nil
}

// makeSegment makes a segment of a blank, or of a new file if there is none. A crash leaves the
// whole file, or one that Dir.Probe removes.
func makeSegment(e *eraser, dir string, s segment, blank string) (*segment, error) {
	s.path = filepath.Join(dir, nameOf(s.number))
	tmp, flags := blank, os.O_RDWR
	if blank == "" {
		tmp, flags = s.path+diskfile.TmpSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC
	}
	f, err := os.OpenFile(tmp, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if blank == "" {
		err = e.fill(f, s.size)
	}
	if err == nil {
		err = e.sys.WriteAt(f, s.head(), 0)
	}
	if err == nil {
		err = e.sys.Sync(f)
	}
	if cerr := f.Close(); err == nil { // Windows renames no open file
		err = cerr
	}
	if err == nil {
		if err = e.sys.Rename(tmp, s.path); err == nil {
			err = e.sys.SyncDir(dir)
		}
	}
	if err == nil {
		s.file, err = os.OpenFile(s.path, os.O_RDWR, 0)
	}
	if err != nil {
		_, _ = os.Remove(tmp), os.Remove(s.path)
		return nil, err
	}
	return &s, nil
}

// openSegment opens the file of a segment.
func openSegment(dir string, id, number uint64, open func(string) (*os.File, error)) (*segment, error) {
	s := &segment{id: id, number: number, path: filepath.Join(dir, nameOf(number))}
	f, err := open(s.path)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && (fi.Size()%sectorSize != 0 || fi.Size() < 2*sectorSize) {
		err = diskfile.Named(s.path, diskfile.Damaged("it is %d bytes long", fi.Size()))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.file, s.size = f, fi.Size()
	return s, nil
}
