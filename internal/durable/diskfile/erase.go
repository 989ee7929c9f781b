package diskfile

import (
	"errors"
	"os"
	"time"
)

const (
	eraseBy   = 256 << 10 // bytes in one write
	eraseSync = 1 << 20   // bytes between two syncs
)

// ErrStopped says that something was not erased to the end.
var ErrStopped = errors.New("erasing was stopped")

// Erase overwrites a file with zeros, and syncs it. It leaves the disk to others in between: one
// large write would delay theirs. When stop is closed it ends with ErrStopped; a nil stop never is.
//
// A file system that writes elsewhere when it overwrites, and a disk that does, keep the old
// content all the same.
func Erase(f *os.File, stop <-chan struct{}) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	zero := make([]byte, min(eraseBy, fi.Size()))
	began := time.Now()
	for at := int64(0); at < fi.Size(); at += eraseBy {
		if _, err := f.WriteAt(zero[:min(eraseBy, fi.Size()-at)], at); err != nil {
			return err
		}
		if (at+eraseBy)%eraseSync != 0 {
			continue
		}
		if err := f.Sync(); err != nil {
			return err
		}
		select {
		case <-time.After(2 * time.Since(began)):
		case <-stop:
			return ErrStopped
		}
		began = time.Now()
	}
	return f.Sync()
}

// EraseAt is Erase for the file at path. It is no error if there is none.
func EraseAt(path string, stop <-chan struct{}) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(Erase(f, stop), f.Close())
}
