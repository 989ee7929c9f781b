package viewtest

import (
	"os"
	"path/filepath"

	"github.com/google/go-cmp/cmp"
)

// T is what is used of a *testing.T, without its package: only tests may link that.
type T interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

// SameAsFile compares a text with that of a file in testdata. With update it writes the file anew
// first.
func SameAsFile(t T, update bool, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("it says something else; -update writes the file anew (-want +got):\n%s", diff)
	}
}
