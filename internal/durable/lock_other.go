//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package durable

import "os"

// lockFile takes no lock: this system has no lock in golang.org/x/sys/unix that ends
// with the process. Two processes on one directory are then stopped only when the
// second opens the log, by bbolt's own lock.
func lockFile(*os.File) (bool, error) { return true, nil }

// writable: this system is not asked. The next write says it.
func writable(string) error { return nil }

// deleted: this system does not say it.
func deleted(*os.File) bool { return false }
