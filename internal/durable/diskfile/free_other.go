//go:build !(darwin || freebsd || linux)

package diskfile

import "errors"

// Free returns how many bytes this process could still write to the file system of a directory. The
// error wraps errors.ErrUnsupported on a system that does not say.
func Free(string) (int64, error) { return 0, errors.ErrUnsupported }
