package durable

import (
	"encoding/binary"
	"os"
	"path/filepath"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

const (
	markSize = 4 + 8 + 8 + 4
	markHead = "flm1"
)

// Mark is the newest entry that a node has applied, and so knows to be committed, and the checksum
// of everything that it had applied then. raft writes down neither. A mark is not synced: it
// outlives the process, but not always the machine. Then an older mark is there, or none.
type Mark struct {
	Index uint64 // of the entry; 0: there is no mark
	Sum   uint64 // see package history
}

func (m Mark) encode() []byte {
	b := append(make([]byte, 0, markSize), markHead...)
	b = binary.BigEndian.AppendUint64(b, m.Index)
	b = binary.BigEndian.AppendUint64(b, m.Sum)
	return diskfile.AppendSum(b)
}

// decodeMark returns the zero Mark if b is none. That is safe, because a mark says less than the
// log in any case.
func decodeMark(b []byte) Mark {
	body, ok := diskfile.CutSum(b)
	if !ok || len(b) != markSize || string(body[:4]) != markHead {
		return Mark{}
	}
	return Mark{binary.BigEndian.Uint64(body[4:]), binary.BigEndian.Uint64(body[12:])}
}

// ReadMark returns the mark: the zero Mark if there is none, or if it cannot be read.
func (d *Dir) ReadMark() Mark { return readMark(d.path) }

func readMark(dir string) Mark {
	b, err := os.ReadFile(filepath.Join(dir, markName))
	if err != nil {
		return Mark{}
	}
	return decodeMark(b)
}

// MarkFile is the file of the mark, open for writing. One goroutine at a time uses it.
type MarkFile struct{ f *os.File }

// OpenMark opens the file of the mark, and makes it if there is none.
func (d *Dir) OpenMark() (*MarkFile, error) {
	f, err := os.OpenFile(d.join(markName), os.O_WRONLY|os.O_CREATE, 0o600)
	return &MarkFile{f}, err
}

// Write replaces the mark.
func (m *MarkFile) Write(v Mark) error {
	_, err := m.f.WriteAt(v.encode(), 0)
	return err
}

// Close closes the file.
func (m *MarkFile) Close() error { return m.f.Close() }
