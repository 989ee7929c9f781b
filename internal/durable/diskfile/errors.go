package diskfile

import (
	"errors"
	"fmt"
)

// DamagedError says that a file or directory does not hold what this package wrote, or that it is
// missing beside others that need it. Nothing has been changed.
type DamagedError struct {
	Path   string // the file or directory that is damaged
	Reason string // what is wrong with it
}

// Permanent says that trying again would not change it.
func (e *DamagedError) Permanent() bool { return true }

// Error names the file, what is wrong and the remedy.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged: %s; remove the node's data directory: the node then joins again as a new one "+
		"and gets everything from the others", e.Path, e.Reason)
}

// MovedError says that a path does not lead to what this process has open there. A file, or the
// whole directory, was deleted, renamed or replaced under the running process. What the process
// writes from then on is lost when it ends.
type MovedError struct {
	Path    string // the path that was looked at
	Missing bool   // nothing is at the path; otherwise something else is
	Dir     bool   // it is the data directory itself
}

// Error names the path, and what has become of it.
func (e *MovedError) Error() string {
	if e.Missing {
		return e.Path + " was deleted or moved away while this process uses it"
	}
	return e.Path + " was replaced while this process uses it"
}

// Finding is the damage that a checker has found in a file whose name it does not know.
type Finding struct {
	Reason string // what is wrong
}

// Error is the reason.
func (f *Finding) Error() string { return f.Reason }

// Damaged returns a Finding.
func Damaged(format string, args ...any) error { return &Finding{fmt.Sprintf(format, args...)} }

// Named makes a DamagedError of a Finding. It returns other errors as they are.
func Named(path string, err error) error {
	if found, ok := errors.AsType[*Finding](err); ok {
		return &DamagedError{Path: path, Reason: found.Reason}
	}
	return err
}
