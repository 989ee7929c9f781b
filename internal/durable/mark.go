package durable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	markName = "applied"
	markSize = 4 + 8 + 8 + 4
	markHead = "flm1"
)

// Mark is the newest entry that a node has applied, and so knows to be committed, and what stands for
// all that it had applied then. raft writes down neither. It is not synced: it outlives the process, but
// not always the machine, and then an older one is there, or none.
type Mark struct {
	Index uint64 // of the entry; 0: there is no mark
	Sum   uint64 // see package history
}

// ReadMark returns the mark: the zero Mark if there is none or if it cannot be read, since a mark says
// less than the log in any case.
func (d *Dir) ReadMark() Mark {
	b, err := os.ReadFile(filepath.Join(d.path, markName))
	body, ok := cutSum(b)
	if err != nil || !ok || len(b) != markSize || string(body[:4]) != markHead {
		return Mark{}
	}
	return Mark{binary.BigEndian.Uint64(body[4:]), binary.BigEndian.Uint64(body[12:])}
}

// MarkFile is the file of the mark, open for writing. One goroutine at a time uses it.
type MarkFile struct{ f *os.File }

// OpenMark opens the file of the mark, and makes it if there is none.
func (d *Dir) OpenMark() (*MarkFile, error) {
	f, err := os.OpenFile(filepath.Join(d.path, markName), os.O_WRONLY|os.O_CREATE, 0o600)
	return &MarkFile{f}, err
}

// Write replaces the mark.
func (m *MarkFile) Write(v Mark) error {
	b := append(make([]byte, 0, markSize), markHead...)
	b = binary.BigEndian.AppendUint64(b, v.Index)
	b = binary.BigEndian.AppendUint64(b, v.Sum)
	_, err := m.f.WriteAt(appendSum(b), 0)
	return err
}

// Close closes the file.
func (m *MarkFile) Close() error { return m.f.Close() }

// removeMark deletes the file.
func (d *Dir) removeMark() error {
	if err := os.Remove(filepath.Join(d.path, markName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the mark of what was applied: %w", err)
	}
	return nil
}
