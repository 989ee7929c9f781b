//go:build !linux

package diskfile

import "os"

// ReadFromDisk only syncs the file: this system has no such advice.
func ReadFromDisk(f *os.File) error { return f.Sync() }
