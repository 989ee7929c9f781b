package journal

import (
	"io"
	"os"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// System is what a journal asks of the operating system to change its files. Tests put faults and
// crashes there.
type System interface {
	// WriteAt writes all of b.
	WriteAt(f *os.File, b []byte, off int64) error

	// Sync makes durable what was written to a file, and its size.
	Sync(f *os.File) error

	// SyncDir makes names durable.
	SyncDir(path string) error

	// Rename renames a file.
	Rename(from, to string) error

	// Remove removes a file.
	Remove(path string) error
}

// OS is the System of this machine.
type OS struct{}

// WriteAt implements System.
func (OS) WriteAt(f *os.File, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// Sync implements System.
func (OS) Sync(f *os.File) error { return datasync(f) }

// SyncDir implements System.
func (OS) SyncDir(path string) error { return diskfile.SyncDir(path) }

// Rename implements System.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements System.
func (OS) Remove(path string) error { return os.Remove(path) }
