package durable

import (
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/snapstore"
)

type (
	// DamagedError says that a file or directory does not hold what this package wrote, or that it
	// is missing beside others that need it. Nothing has been changed.
	DamagedError = diskfile.DamagedError

	// MovedError says that a path does not lead to what this process has open there: it was
	// deleted, renamed or replaced under the running process.
	MovedError = diskfile.MovedError
)

// ErrRestart says that raft must be started again, with a log and a snapshot store that are opened
// again. Nothing is wrong with the disk. See [GuardSnapshots].
var ErrRestart = snapstore.ErrRestart

// InUseError says that another process, or another [Dir] of this one, holds the directory.
type InUseError struct {
	Path string // the directory
}

// Permanent says that trying again would not change it.
func (e *InUseError) Permanent() bool { return true }

// Error names the directory.
func (e *InUseError) Error() string {
	return fmt.Sprintf("%s is in use by another process", e.Path)
}
