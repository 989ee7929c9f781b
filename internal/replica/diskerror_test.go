package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable"
)

// An error of the disk says what to do about it.
func TestRemedies(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{syscall.ENOSPC, "make room in /dir"},
		{syscall.EDQUOT, "make room in /dir"},
		{syscall.EROFS, "mount the file system of /dir writable"},
		{fs.ErrPermission, "let this process write to /dir again"},
		{syscall.EIO, "check the disk and the system's log"},
		{&durable.MovedError{Missing: true}, "put it back; else this node writes it anew"},
		{&durable.MovedError{Missing: true, Dir: true}, "start it with the right Dir"},
		{&durable.MovedError{}, "or remove what is there now"},
		{&durable.MovedError{Dir: true}, "put the original back, or stop this node"},
	} {
		err := explain(fmt.Errorf("writing: %w", test.err), "/dir")
		if !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q in it", err, test.want)
		}
	}
}

type permanentError struct{ permanent bool }

func (e permanentError) Error() string   { return "damaged" }
func (e permanentError) Permanent() bool { return e.permanent }

// An error may pass unless it says that it is permanent.
func TestErrorsThatPass(t *testing.T) {
	for _, test := range []struct {
		err            error
		ofDisk, passes bool
	}{
		{fmt.Errorf("writing: %w", syscall.EIO), true, true},
		{errors.New("another"), false, true},
		{fmt.Errorf("reading: %w", permanentError{true}), false, false},
		{fmt.Errorf("reading: %w", permanentError{false}), false, true},
	} {
		if OfDisk(test.err) != test.ofDisk || MayPass(test.err) != test.passes {
			t.Errorf("%v: of the disk %v, may pass %v", test.err, OfDisk(test.err), MayPass(test.err))
		}
	}
}
