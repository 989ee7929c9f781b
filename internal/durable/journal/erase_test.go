package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// counting is a System that counts what is written, by file and in all.
type counting struct {
	OS
	files map[string]int // bytes written while the file had that name
	syncs map[string]int
	sum   int
}

func newCounting() *counting {
	return &counting{files: make(map[string]int), syncs: make(map[string]int)}
}

// Sync implements System.
func (c *counting) Sync(f *os.File) error {
	c.syncs[filepath.Base(f.Name())]++
	return c.OS.Sync(f)
}

// WriteAt implements System.
func (c *counting) WriteAt(f *os.File, b []byte, off int64) error {
	c.files[filepath.Base(f.Name())] += len(b)
	c.sum += len(b)
	return c.OS.WriteAt(f, b, off)
}

// fillSegments appends batches until a segment with that number is written, and returns the next
// batch.
func fillSegments(t *testing.T, j *Journal, next int, number uint64) int {
	t.Helper()
	for {
		if _, current := j.Segments(); current >= number {
			return next
		}
		fill(t, j, next, next)
		next++
	}
}

// A segment that is removed is overwritten, and a later one is made of its file. In the long run
// what is appended is written twice, and nothing else.
func TestBlanks(t *testing.T) {
	sys := newCounting()
	o := Options{Sys: sys, Largest: smallest}
	j, dir := create(t, o)
	next := fillSegments(t, j, 1, 5)
	must(t, j.Remove(4, nil))
	blanks := tmpFiles(t, dir)
	if len(blanks) != maxBlanks {
		t.Fatalf("%d files wait to be used again, want %d", len(blanks), maxBlanks)
	}
	for _, blank := range blanks {
		if b := disktest.FileBytes(t, blank); !bytes.Equal(b, make([]byte, smallest)) {
			t.Errorf("%s is not blank", blank)
		}
	}
	if have, want := j.Size(), j.Bytes()+maxBlanks*smallest; have != want {
		t.Errorf("the files have %d bytes, want %d", have, want)
	}
	before := sys.sum
	const more = 10
	for n := range uint64(more) {
		next = fillSegments(t, j, next, n+6)
		must(t, j.Remove(n+5, nil))
	}
	if written := sys.sum - before; written < more*smallest || written > 2*(more+1)*smallest {
		t.Errorf("%d bytes are written for %d", written, more*smallest)
	}
	must(t, j.Close())
	if left := tmpFiles(t, dir); len(left) > 0 {
		t.Errorf("after Close there is %v", left)
	}
	first, _ := j.Segments()
	o.From = first
	_, got, err := open(t, dir, o)
	must(t, err)
	want(t, got, next-len(got), next-1)
}

// A blank of another size is not used, and not kept.
func TestBlanksOfOneSize(t *testing.T) {
	j, dir := create(t, Options{Largest: 2 * smallest})
	fillSegments(t, j, 1, 4)
	must(t, j.Remove(2, nil)) // which is smaller
	if left := tmpFiles(t, dir); len(left) > 0 {
		t.Errorf("a small segment was kept: %v", left)
	}
	must(t, j.Remove(3, nil))
	must(t, j.Prepare(3*smallest))
	if left := tmpFiles(t, dir); len(left) != 1 {
		t.Errorf("%v wait to be used again, want one", left)
	}
}

// The disk is left to others while segments are overwritten, unless many wait: then the eraser must
// not be slower than those who fill the disk.
func TestPatience(t *testing.T) {
	sys := newCounting()
	j, _ := create(t, Options{Sys: sys, Largest: 2 * eraseBy})
	fillSegments(t, j, 1, 7) // those from the fourth on have the largest size
	clear(sys.syncs)
	between := 0
	must(t, j.Remove(7, func() { between++ }))
	want := map[string]int{nameOf(1): 1, nameOf(2): 1, nameOf(3): 1, nameOf(4): 1, nameOf(5): 2, nameOf(6): 2}
	if diff := cmp.Diff(want, sys.syncs); diff != "" {
		t.Errorf("syncs: %s", diff)
	}
	if between != len(want) {
		t.Errorf("others had their turn %d times, want %d", between, len(want))
	}
}

// Somebody who tidies up may remove files that wait to be used again. Nothing needs them.
func TestBlanksThatAreGone(t *testing.T) {
	j, dir := create(t, Options{Largest: smallest})
	next := fillSegments(t, j, 1, 4)
	must(t, j.Remove(3, nil))
	for _, blank := range tmpFiles(t, dir) {
		must(t, os.Remove(blank))
	}
	next = fillSegments(t, j, next, 5)
	first, _ := j.Segments()
	must(t, j.Close())
	_, got, err := open(t, dir, Options{From: first})
	must(t, err)
	want(t, got, next-len(got), next-1)
}

// The end of the journal does not wait until old segments are overwritten. The next start does it.
func TestRemoveStops(t *testing.T) {
	stop := make(chan struct{})
	o := Options{Stop: stop}
	j, dir := create(t, o)
	next := fillSegments(t, j, 1, 3)
	close(stop)
	must(t, j.Remove(3, nil))
	must(t, j.Close())
	old, err := numbers(dir)
	must(t, err)
	if diff := cmp.Diff([]uint64{1, 2, 3}, old); diff != "" {
		t.Errorf("segments at the end: %s", diff)
	}
	sys := newCounting()
	j, got, err := open(t, dir, Options{From: 3, Sys: sys})
	must(t, err)
	want(t, got, next-len(got), next-1)
	if diff := cmp.Diff(map[string]int{nameOf(1): smallest, nameOf(2): 2 * smallest}, sys.files); diff != "" {
		t.Errorf("bytes written at the start: %s", diff)
	}
	if left, err := numbers(dir); err != nil || len(left) != 1 {
		t.Errorf("segments after the start: %v, %v", left, err)
	}
	_ = j
}
