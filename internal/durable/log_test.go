package durable

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

func TestOpenLog(t *testing.T) {
	path := t.TempDir()
	d := lock(t, path)
	if d.HasLog() {
		t.Error("an empty directory has a log")
	}
	_, err := d.OpenLog(LogOptions{})
	disktest.IsDamaged(t, err, path)
	l := openTestLog(t, d, true)
	if !d.HasLog() || l.Size() == 0 {
		t.Error("there is no log")
	}
	for _, key := range []string{disktest.KeyTerm, disktest.KeyVoteTerm} {
		if _, err := l.GetUint64([]byte(key)); err == nil || err.Error() != "not found" {
			t.Errorf("GetUint64(%s) of a new log: %v", key, err)
		}
	}
	if _, err := l.Get([]byte(disktest.KeyCandidate)); err == nil || err.Error() != "not found" {
		t.Errorf("Get of a new log: %v", err)
	}
	for _, err := range []error{l.Set([]byte("other"), nil), l.SetUint64([]byte("other"), 1), l.Set([]byte(disktest.KeyCandidate), make([]byte, 1<<10+1))} {
		if err == nil ||
			!strings.Contains(err.Error(), "unknown key") && !strings.Contains(err.Error(), "is too long") {
			t.Errorf("an unknown key or a long value was stored: %v", err)
		}
	}
	must(t, l.Close())
	must(t, l.Close())
	if _, err := d.OpenLog(LogOptions{Create: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a log: %v", err)
	}
	must(t, d.RemoveState())
	if d.HasLog() {
		t.Error("RemoveState left the log")
	}
	must(t, d.RemoveState())
	must(t, openTestLog(t, d, true).Close())
}

// faulty is a disk that fails after a number of writes, once it is armed.
type faulty struct {
	armed bool
	after int
	err   error
}

// fault is a LogOptions.Fault.
func (f *faulty) fault(string) error {
	if !f.armed {
		return nil
	}
	if f.after--; f.after < 0 {
		return f.err
	}
	return nil
}

// panicking is a store of entries and votes that panics, as bbolt does, instead of writing a vote.
type panicking struct{ boltlog.Store }

// Set implements boltlog.Store.
func (panicking) Set(k, v []byte) error { panic("a page is not what it should be") }
