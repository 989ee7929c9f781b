package diagnosis

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// OfDisk describes a data directory. Empty stands for none.
func OfDisk(dir string) Disk {
	d := Disk{Dir: dir, Free: -1}
	if dir == "" {
		return d
	}
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var fi fs.FileInfo
			if fi, err = e.Info(); err == nil {
				d.Files++
				d.Bytes += fi.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the node has removed it meanwhile
		}
		return err
	})
	if free, unknown := diskfile.Free(dir); unknown == nil {
		d.Free = free
	}
	if err != nil {
		d.Err = err.Error()
	}
	return d
}
