//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package durable

import "os"

// lockFile takes no lock: this system has no lock in golang.org/x/sys/unix that ends with the
// process. bbolt's own lock then stops a second process on the directory, when that opens the log.
func lockFile(*os.File) (bool, error) { return true, nil }

// writable does not ask this system. The next write shows it.
func writable(string) error { return nil }

// deleted is false: this system does not say it.
func deleted(*os.File) bool { return false }
