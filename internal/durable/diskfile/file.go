package diskfile

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"runtime"
)

// TmpSuffix ends the name of a file or directory that is not finished. It is removed when the
// directory is opened the next time.
const TmpSuffix = ".tmp"

// Castagnoli is the table of CRC-32C (RFC 3720), which finds every flipped bit and every burst of
// up to 32 bits. It is the same table every time.
func Castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// AppendSum appends a checksum of b to b.
func AppendSum(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, Castagnoli()))
}

// CutSum is the inverse of AppendSum. It returns false if the checksum is wrong, or if there is
// nothing but a checksum.
func CutSum(b []byte) ([]byte, bool) {
	if len(b) < 5 {
		return nil, false
	}
	n := len(b) - 4
	return b[:n], crc32.Checksum(b[:n], Castagnoli()) == binary.BigEndian.Uint32(b[n:])
}

// Create writes and syncs a new file, and returns it open. After an error there is none.
func Create(path string, data []byte) (*os.File, error) {
	return create(path, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// Copy is Create with all that from holds.
func Copy(path string, from *os.File) (*os.File, error) {
	fi, err := from.Stat()
	if err != nil {
		return nil, err
	}
	return create(path, func(f *os.File) error {
		n, err := io.Copy(f, io.NewSectionReader(from, 0, fi.Size()))
		if err == nil && n != fi.Size() {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}

func create(path string, fill func(*os.File) error) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		_, _ = f.Close(), os.Remove(path)
		return nil, err
	}
	return f, nil
}

// SyncDir syncs the names in a directory.
func SyncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // a directory cannot be synced there
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
