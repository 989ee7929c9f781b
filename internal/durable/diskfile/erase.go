package diskfile

import (
	"errors"
	"os"
)

const eraseBy = 256 << 10 // bytes in one write

// Erase overwrites a file with zeros, and syncs it. A file system that writes elsewhere when it
// overwrites, and a disk that does, keep the old content all the same.
func Erase(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	zero := make([]byte, min(eraseBy, fi.Size()))
	for at := int64(0); at < fi.Size(); at += eraseBy {
		if _, err := f.WriteAt(zero[:min(eraseBy, fi.Size()-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// EraseAt is Erase for the file at path. It is no error if there is none.
func EraseAt(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(Erase(f), f.Close())
}
