package journal

import (
	"os"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// neighbour is a System that looks at what the owner of a journal knows of its files, and at what
// is open.
type neighbour struct {
	OS
	t     *testing.T
	known map[string]bool // by Added and Removed
	files int             // that got a name or lost it
}

func (n *neighbour) options() Options {
	return Options{
		Sys:     n,
		Added:   func(path string) error { n.known[path] = true; return nil },
		Removed: func(path string) { delete(n.known, path) },
	}
}

func (n *neighbour) look(paths ...string) {
	n.t.Helper()
	n.files++
	for _, path := range paths {
		if n.known[path] {
			n.t.Errorf("%s goes, and its owner was not told", path)
		}
		if disktest.IsOpen(n.t, path) {
			n.t.Errorf("%s goes, and is open", path)
		}
	}
}

// Rename implements System.
func (n *neighbour) Rename(from, to string) error {
	n.look(from, to)
	return n.OS.Rename(from, to)
}

// Remove implements System.
func (n *neighbour) Remove(path string) error {
	n.look(path)
	return n.OS.Remove(path)
}

// Each file is closed, and its owner told, before it is renamed, replaced or removed.
func TestFilesThatGo(t *testing.T) {
	n := &neighbour{t: t, known: make(map[string]bool)}
	j, dir := create(t, n.options())
	must(t, j.Prepare(0))
	must(t, j.Prepare(1<<20)) // which the one before has no room for
	must(t, j.Next(0))
	fill(t, j, 1, 3)
	must(t, j.Remove(2, nil))
	must(t, j.Next(0))
	fill(t, j, 4, 5)
	must(t, j.Close())
	o := n.options()
	o.From = 3
	j, got, err := open(t, dir, o)
	must(t, err)
	want(t, got, 4, 5)
	must(t, j.Prepare(0))
	if n.files != 6 {
		t.Errorf("%d files had another name or none; the test shows nothing", n.files)
	}
	for path := range n.known {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("its owner was not told: %v", err)
		}
	}
}
