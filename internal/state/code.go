package state

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/errs"
)

// ErrNoTransferee is the error of a move of a role that no waiting claim fits.
var ErrNoTransferee = errors.New("no node waits for it that it could go to")

// Err returns the error that an outcome stands for. It returns nil for an outcome that is no error.
func (c Code) Err() error {
	switch c {
	case CodeIsDir:
		return syscall.EISDIR
	case CodeNotDir:
		return syscall.ENOTDIR
	case CodeNotHeld:
		return errs.ErrLost
	case CodeNoTransferee:
		return ErrNoTransferee
	case CodeFull:
		return fmt.Errorf("%w: the limit for data of this kind is reached; delete something or raise Config.MaxState", errs.ErrTooLarge)
	}
	return nil
}
