//go:build !linux

package frontend

import "syscall"

// openFiles returns a number of descriptors that every system allows after package os has raised
// its limit.
func openFiles() int { return 4096 }

// wakeWriters is for net.ListenConfig.
func wakeWriters(string, string, syscall.RawConn) error { return nil }
