package state

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/errs"
)

// ErrNoTransferee is why a role stays where it is.
var ErrNoTransferee = errors.New("no node waits for it that it could go to")

// Err returns the error that an outcome stands for, nil if it is none.
func (c Code) Err() error {
	switch c {
	case CodeIsDir:
		return syscall.EISDIR
	case CodeNotDir:
		return syscall.ENOTDIR
	case CodeNotHeld:
		return errs.Lost
	case CodeNoTransferee:
		return ErrNoTransferee
	case CodeFull:
		return fmt.Errorf("%w: the limit for what is of this kind is reached; delete something or raise Config.MaxState", errs.TooLarge)
	}
	return nil
}
