package durable

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

const (
	fileMagic  = "flf1"
	fileHeader = 12 // magic, length, checksum
)

// ReadFile returns what WriteFile stored. The error is exactly fs.ErrNotExist if there is no such
// file, and a [DamagedError] if the file is not as it was written.
func (d *Dir) ReadFile(name string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	path := d.join(name)
	data, f, err := readSmall(path, diskfile.OpenKept)
	if err != nil {
		return nil, err
	}
	d.places.KeepOnly(path, nil)
	d.places.Keep(path, f)
	return data, nil
}

// readSmall reads a small file and returns it open. After an error it is closed.
func readSmall(path string, open func(path string) (*os.File, error)) ([]byte, *os.File, error) {
	f, err := open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(f)
	if err == nil {
		b, err = decodeFile(b)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, diskfile.Named(path, err)
	}
	return b, f, nil
}

// WriteFile replaces the file as a whole: after a crash it holds either what it held or data. When
// it returns nil, data is on disk. The name has no path separators and does not end in ".tmp".
func (d *Dir) WriteFile(name string, data []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	path := d.join(name)
	tmp := path + tmpSuffix
	f, err := diskfile.Create(tmp, encodeFile(data))
	if err != nil {
		return err
	}
	d.places.Keep(path, f)
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		d.places.Drop(path, f)
		return err
	}
	d.places.KeepOnly(path, f)
	return diskfile.SyncDir(d.path)
}

// RemoveFile deletes what WriteFile stored. If there is no such file, it does nothing.
func (d *Dir) RemoveFile(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	path := d.join(name)
	d.places.KeepOnly(path, nil)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return diskfile.SyncDir(d.path)
}

func encodeFile(data []byte) []byte {
	b := make([]byte, 0, fileHeader+len(data))
	b = append(b, fileMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(data, diskfile.Castagnoli()))
	return append(b, data...)
}

// decodeFile is the inverse of encodeFile. Its error is a diskfile.Finding.
func decodeFile(b []byte) ([]byte, error) {
	switch {
	case len(b) < fileHeader:
		return nil, diskfile.Damaged("it is only %d bytes long", len(b))
	case string(b[:4]) != fileMagic:
		return nil, diskfile.Damaged("it does not begin as it should")
	case uint64(binary.BigEndian.Uint32(b[4:])) != uint64(len(b)-fileHeader):
		return nil, diskfile.Damaged("its length is wrong")
	case binary.BigEndian.Uint32(b[8:]) != crc32.Checksum(b[fileHeader:], diskfile.Castagnoli()):
		return nil, diskfile.Damaged("its checksum is wrong")
	}
	return b[fileHeader:], nil
}

// isSmallFile reports whether a regular file is one of WriteFile.
func isSmallFile(dir, name string) bool {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(fileMagic))
	_, err = f.Read(head)
	return err == nil && string(head) == fileMagic
}
