package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// What was appended is there after the journal is opened again, over several segments.
func TestReopen(t *testing.T) {
	j, dir := create(t, Options{})
	last := 0
	for _, n := range []int{1, 2, 40, 41, 200, 400} {
		fill(t, j, last+1, n)
		last = n
		end := j.End()
		must(t, j.Close())
		again, got, err := open(t, dir, Options{Known: end})
		must(t, err)
		want(t, got, 1, n)
		j = again
	}
	if first, current := j.Segments(); first != 1 || current < 3 {
		t.Errorf("the segments are %d to %d", first, current)
	}
	bytes, err := Read(dir, testID, 1, func(Place, []byte) error { return nil })
	if err != nil || bytes != j.Bytes() {
		t.Errorf("Read says %d bytes, %v; Bytes says %d", bytes, err, j.Bytes())
	}
}

// A batch that no segment has room for gets one that is large enough.
func TestLargeBatch(t *testing.T) {
	j, dir := create(t, Options{})
	must(t, j.Prepare(0)) // a segment that is too small for it
	large := bytes.Repeat([]byte("large"), 4<<20)
	at, err := add(j, large)
	must(t, err)
	got, err := j.ReadAt(at, 5_000_000, 5)
	if err != nil || string(got) != "large" {
		t.Errorf("read %q, %v", got, err)
	}
	must(t, j.Close())
	_, all, err := open(t, dir, Options{})
	if err != nil || len(all) != 1 || !bytes.Equal(all[0], large) {
		t.Errorf("%d batches, %v", len(all), err)
	}
}

// Each part of a batch can be read by its place, until its segment is removed.
func TestReadAt(t *testing.T) {
	j, dir := create(t, Options{})
	var places []Place
	for i := 1; i <= 200; i++ {
		at, err := add(j, body(i))
		must(t, err)
		places = append(places, at)
	}
	read := func(i, off, size int) ([]byte, error) { return j.ReadAt(places[i-1], off, size) }
	for i := 1; i <= 200; i++ {
		b := body(i)
		for _, off := range []int{0, len(b) / 3, len(b)} {
			got, err := read(i, off, len(b)-off)
			if err != nil || !bytes.Equal(got, b[off:]) {
				t.Fatalf("batch %d from %d on: %q, %v", i, off, got, err)
			}
		}
	}
	_, current := j.Segments()
	must(t, j.Remove(current, nil))
	if _, err := read(1, 0, 1); !errors.Is(err, ErrGone) {
		t.Errorf("a removed segment: %v", err)
	}
	if _, err := read(200, 0, 1); err != nil {
		t.Error(err)
	}
	must(t, j.Close())
	_, got, err := open(t, dir, Options{From: current})
	must(t, err)
	want(t, got, 200-len(got)+1, 200)
	if left, err := numbers(dir); err != nil || left[0] != current {
		t.Errorf("the files are %v, %v", left, err)
	}
}

// A sector that is not as it was written there is noticed when it is read.
func TestReadDamage(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(b []byte)
	}{
		{"flipped", func(b []byte) { b[2*sectorSize+100] ^= 1 }},
		{"zero", func(b []byte) { clear(b[2*sectorSize:][:sectorSize]) }},
		{"of another place", func(b []byte) { copy(b[2*sectorSize:][:sectorSize], b[3*sectorSize:]) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			j, dir := create(t, Options{})
			at, err := add(j, body(5))
			must(t, err)
			path := filepath.Join(dir, nameOf(1))
			b := disktest.FileBytes(t, path)
			test.change(b)
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt(b, 0)
			must(t, errors.Join(err, f.Close()))
			_, err = j.ReadAt(at, 0, len(body(5)))
			disktest.IsDamaged(t, err, path)
		})
	}
}

// Removed segments are overwritten before their files are removed.
func TestRemovedContentIsGone(t *testing.T) {
	j, dir := create(t, Options{})
	fill(t, j, 1, 200)
	kept, err := os.Open(filepath.Join(dir, nameOf(1)))
	must(t, err)
	defer kept.Close()
	must(t, j.Remove(2, nil))
	b := make([]byte, smallest)
	_, err = kept.ReadAt(b, 0)
	must(t, err)
	if !bytes.Equal(b, make([]byte, smallest)) {
		t.Error("the file still has content")
	}
}

// What is missing or of another time is refused, by name.
func TestRefused(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(t *testing.T, dir string, older map[string][]byte)
		path string // what the error names; empty: the directory
		says string
	}{
		{"first segment missing", func(t *testing.T, dir string, _ map[string][]byte) {
			must(t, os.Remove(filepath.Join(dir, nameOf(1))))
		}, "", "the part raft-0000000000000001.log of the raft log is missing"},
		{"segment between missing", func(t *testing.T, dir string, _ map[string][]byte) {
			must(t, os.Remove(filepath.Join(dir, nameOf(2))))
		}, "", "the part raft-0000000000000002.log of the raft log is missing"},
		{"newest segments missing", func(t *testing.T, dir string, _ map[string][]byte) {
			must(t, os.Remove(filepath.Join(dir, nameOf(3))))
			must(t, os.Remove(filepath.Join(dir, nameOf(4))))
		}, "", "the part raft-0000000000000003.log of the raft log is missing"},
		{"segment cut", func(t *testing.T, dir string, _ map[string][]byte) {
			must(t, os.Truncate(filepath.Join(dir, nameOf(2)), 10*sectorSize))
		}, nameOf(2), "it is 5120 bytes long, and was 131072"},
		{"segment cut in a sector", func(t *testing.T, dir string, _ map[string][]byte) {
			must(t, os.Truncate(filepath.Join(dir, nameOf(2)), 10*sectorSize+1))
		}, nameOf(2), "it is 5121 bytes long"},
		{"segment swapped", func(t *testing.T, dir string, _ map[string][]byte) {
			must(t, os.Rename(filepath.Join(dir, nameOf(2)), filepath.Join(dir, nameOf(3))))
			disktest.Put(t, filepath.Join(dir, nameOf(2)), disktest.FileBytes(t, filepath.Join(dir, nameOf(3))))
		}, nameOf(3), "its first sector is wrong"},
		{"older segment", func(t *testing.T, dir string, older map[string][]byte) {
			disktest.Put(t, filepath.Join(dir, nameOf(2)), older[nameOf(2)])
		}, nameOf(3), "does not follow batch"},
		{"older newest segment", func(t *testing.T, dir string, older map[string][]byte) {
			disktest.Put(t, filepath.Join(dir, nameOf(3)), older[nameOf(3)])
		}, nameOf(3), "this process has written batch"},
		{"another journal's", func(t *testing.T, dir string, _ map[string][]byte) {
			other := disktest.MemDir(t)
			must(t, Create(other, testID+1, 1, nil))
			disktest.Put(t, filepath.Join(dir, nameOf(1)), disktest.FileBytes(t, filepath.Join(other, nameOf(1))))
		}, nameOf(1), "its first sector is wrong"},
	} {
		t.Run(test.name, func(t *testing.T) {
			j, dir := create(t, Options{})
			older := make(map[string][]byte)
			for i := 1; ; i++ {
				fill(t, j, i, i)
				_, current := j.Segments()
				if name := nameOf(current); i%30 == 0 && older[name] == nil {
					older[name] = disktest.FileBytes(t, filepath.Join(dir, name))
				}
				if current == 3 && i%100 == 0 {
					break
				}
			}
			must(t, j.Prepare(0))
			known := j.End()
			must(t, j.Close())
			test.do(t, dir, older)
			before := disktest.Tree(t, dir)
			_, _, err := open(t, dir, Options{Known: known})
			disktest.IsDamaged(t, err, filepath.Join(dir, test.path))
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("the error is %q, want %q", err, test.says)
			}
			disktest.Diff(t, before, disktest.Tree(t, dir))
		})
	}
}

// A batch that Open would not read is not written.
func TestTooLarge(t *testing.T) {
	j, dir := create(t, Options{})
	if _, err := j.Append(make([]byte, MaxBatch+1)); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("got %v", err)
	}
	must(t, j.Close())
	_, got, err := open(t, dir, Options{})
	must(t, err)
	want(t, got, 1, 0)
}
