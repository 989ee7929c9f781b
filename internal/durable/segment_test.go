package durable

import (
	"errors"
	"syscall"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
)

// unremovable is a System that removes no file.
type unremovable struct{ journal.OS }

// Remove implements journal.System.
func (unremovable) Remove(string) error { return syscall.EIO }

// TestRemovedAtOpen: segments that a failure has left are removed when the log is opened again.
// Check misses none of them.
func TestRemovedAtOpen(t *testing.T) {
	d := lock(t, disktest.MemDir(t))
	failed := make(chan error, 1)
	l, err := d.OpenLog(LogOptions{Create: true, Failed: func(err error) { failed <- err }, Faults: Faults{System: unremovable{}}})
	must(t, err)
	for i := uint64(1); i <= 200; i++ { // several segments
		must(t, l.StoreLog(disktest.Entry(i, 1, 2000)))
	}
	must(t, l.DeleteRange(1, 199))
	if err := <-failed; !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	must(t, l.Close())
	must(t, d.Check())
	openTestLog(t, d, false)
	must(t, d.Check())
}
