//go:build !linux

package frontend

import "syscall"

// openFiles is a number that every system allows once package os has raised its limit.
func openFiles() int { return 4096 }

// wakeWriters is for net.ListenConfig.
func wakeWriters(string, string, syscall.RawConn) error { return nil }
