//go:build !linux

package durable

import "os"

// readFromDisk has what waits for the disk written.
func readFromDisk(f *os.File) error { return f.Sync() }
