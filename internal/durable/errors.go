package durable

import "fmt"

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

// DamagedError says that a file or directory does not hold what this package wrote, or
// that it is missing beside others that need it. Nothing has been changed.
type DamagedError struct {
	Path   string // the file or directory that is damaged
	Reason string // what is wrong with it
}

// Permanent says that trying again would not change it.
func (e *DamagedError) Permanent() bool { return true }

// Error names the file, what is wrong and the remedy.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged: %s; remove the node's data directory: the node then joins again as a new one and gets everything from the others", e.Path, e.Reason)
}

// damage is a finding of a checker that does not know the file's name.
type damage struct{ reason string }

func (d *damage) Error() string { return d.reason }

func damaged(format string, args ...any) error {
	return &damage{fmt.Sprintf(format, args...)}
}
