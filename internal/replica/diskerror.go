package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable"
)

// restoreAfter is how long others have to put back a deleted file. Then the node writes it again.
const restoreAfter = 30 * time.Second

// OfDisk reports whether an error comes from the operating system, and is not about what was read.
func OfDisk(err error) bool { return errors.As(err, new(syscall.Errno)) }

// MayPass reports whether the cause of an error may go away by itself, so that another attempt
// makes sense. An error that knows better has a method Permanent.
func MayPass(err error) bool {
	p, ok := errors.AsType[interface {
		error
		Permanent() bool
	}](err)
	return !ok || !p.Permanent()
}

// explain adds the remedy to an error of the disk. path is the node's directory.
func explain(err error, path string) error {
	remedy := "check the disk and the system's log"
	var moved *durable.MovedError
	switch {
	case errors.As(err, &moved) && !moved.Missing:
		remedy = "put the original back, or stop this node"
		if !moved.Dir {
			remedy = fmt.Sprintf("put the original back; or remove what is there now, then this node writes its own again after %v", restoreAfter)
		}
	case errors.As(err, &moved) && moved.Dir:
		remedy = fmt.Sprintf("put it back, or stop this node and start it with the right Dir; if it was deleted this node writes it anew after %v", restoreAfter)
	case errors.As(err, &moved):
		remedy = fmt.Sprintf("put it back; else this node writes it anew, from what it has open, %v after it was missed, or when it is stopped in order; do not kill it before", restoreAfter)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		remedy = "make room in " + path
	case errors.Is(err, syscall.EROFS):
		remedy = "mount the file system of " + path + " writable"
	case errors.Is(err, fs.ErrPermission):
		remedy = "let this process write to " + path + " again"
	}
	return fmt.Errorf("the disk fails: %w; %s", err, remedy)
}
