//go:build !linux

package boltlog

import "os"

// readFromDisk only syncs the file: this system has no such advice.
func readFromDisk(f *os.File) error { return f.Sync() }
