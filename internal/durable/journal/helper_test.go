package journal

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

const testID = 7

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// body is the content of a batch, the same for each call. Some batches end where a sector does.
func body(number int) []byte {
	size := []int{0, 10, sectorRoom - batchHead, sectorRoom, 1500, 9 * sectorRoom}[number%6]
	return bytes.Repeat([]byte(fmt.Sprintf("batch %d. ", number)), size/8+1)[:size]
}

// open opens a journal and returns its batches.
func open(t testing.TB, dir string, o Options) (*Journal, [][]byte, error) {
	t.Helper()
	var got [][]byte
	o.Dir, o.ID, o.From = dir, testID, max(o.From, 1)
	j, err := Open(o, func(_ Place, b []byte) error {
		got = append(got, bytes.Clone(b))
		return nil
	})
	if err == nil {
		t.Cleanup(func() { _ = j.Close() })
	}
	return j, got, err
}

// create makes a journal in a new directory.
func create(t testing.TB, o Options) (*Journal, string) {
	t.Helper()
	dir := disktest.MemDir(t)
	must(t, Create(dir, testID, 1, nil))
	j, got, err := open(t, dir, o)
	must(t, err)
	if len(got) != 0 {
		t.Fatalf("a new journal has %d batches", len(got))
	}
	return j, dir
}

// add appends a batch, in the next segment if there is no room.
func add(j *Journal, b []byte) (Place, error) {
	if !j.Fits(len(b)) {
		if err := j.Next(len(b)); err != nil {
			return Place{}, err
		}
	}
	return j.Append(b)
}

// fill appends batches with the numbers from first to last.
func fill(t testing.TB, j *Journal, first, last int) {
	t.Helper()
	for i := first; i <= last; i++ {
		_, err := add(j, body(i))
		must(t, err)
	}
}

// want fails the test unless got are the batches from first to last.
func want(t testing.TB, got [][]byte, first, last int) {
	t.Helper()
	if len(got) != last-first+1 {
		t.Fatalf("%d batches, want %d to %d", len(got), first, last)
	}
	for i, b := range got {
		if !bytes.Equal(b, body(first+i)) {
			t.Fatalf("batch %d is %q", first+i, b)
		}
	}
}
