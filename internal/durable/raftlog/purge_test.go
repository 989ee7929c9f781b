package raftlog

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
	"github.com/flotilla-ha/flotilla/internal/testfiles"
)

// After Purge no file has anything of the entries that were deleted, wherever they were: in the
// journal, in raft-boltdb, or in both. The entries that are left can be read, now and later.
func TestPurge(t *testing.T) {
	const old, kept = "ciphertext of a former key", "ciphertext of the present key"
	entry := func(i uint64, text string) *raft.Log {
		return &raft.Log{Index: i, Term: 1, Type: raft.LogCommand, Data: append([]byte(text), make([]byte, 500)...)}
	}
	for _, test := range []struct {
		name         string
		olds, keptIs uint64 // how many entries of each
		moves        bool   // the oldest go to raft-boltdb before
	}{
		{"a few", 3, 2, false},
		{"many", 600, 2, false},
		{"in raft-boltdb too", 600, 2, true},
		{"many are left", 600, 300, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDir(t)
			o := Options{}
			if test.moves {
				o.MoveAfter = 100 << 10
			}
			l := d.mustOpen(t, o)
			l.Start()
			for i := range test.olds {
				must(t, l.StoreLog(entry(i+1, old)))
			}
			if test.moves {
				must(t, l.Purge()) // upkeep is done
				if l.back.Last() == 0 {
					t.Fatal("raft-boltdb has no entry; the test shows nothing")
				}
			}
			for i := range test.keptIs {
				must(t, l.StoreLog(entry(test.olds+i+1, kept)))
			}
			must(t, vote(l, 7, "x"))
			if len(testfiles.With(t, d.path, old)) == 0 {
				t.Fatal("no file has the old entries; the test shows nothing")
			}
			must(t, l.DeleteRange(1, test.olds))
			must(t, l.Purge())
			if names := testfiles.With(t, d.path, old); len(names) > 0 {
				t.Errorf("%v still have what was deleted", names)
			}
			want := all(t, l)
			if want.First != test.olds+1 || want.Last != test.olds+test.keptIs {
				t.Errorf("the log has the entries %d to %d", want.First, want.Last)
			}
			must(t, l.Purge()) // again
			must(t, l.StoreLog(entry(want.Last+1, kept)))
			want = all(t, l)
			must(t, l.Close())
			disktest.Diff(t, want, all(t, d.mustOpen(t, Options{})))
		})
	}
}

// Purge of a log that is closed ends its goroutine, as every call does.
func TestPurgeClosed(t *testing.T) {
	l := newDir(t).mustOpen(t, Options{})
	l.Start()
	must(t, l.Close())
	if err := l.Run(l.Purge); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("the purge of a closed log: %v", err)
	}
}
