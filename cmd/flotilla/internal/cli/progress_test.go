package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

// How far a run is shows in the size of its input, or of the directory that it fills.
func TestGoals(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write := func(n int) {
		t.Helper()
		if err := os.WriteFile(file, make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(1000)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := GoalOf(f); got.Total != 1000 || !got.Bytes {
		t.Errorf("of a file the goal is %+v", got)
	}
	if got := GoalOf(strings.NewReader("1")); got.Total != 0 || !got.Bytes {
		t.Errorf("of a stream the goal is %+v", got)
	}
	growth := GrowthOf(dir, 500)
	if growth.Done() != 0 || growth.Total != 500 || !growth.About {
		t.Errorf("at first the goal is %+v, and %d are done", growth, growth.Done())
	}
	write(1200)
	if got := growth.Done(); got != 200 {
		t.Errorf("%d bytes are done, want 200", got)
	}
	write(100)
	if got := growth.Done(); got != 0 {
		t.Errorf("%d bytes are done in a directory that shrinks", got)
	}
	if got, want := Reading(dir), "reading "+plaintext.Safe(dir)+", 100 bytes"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
