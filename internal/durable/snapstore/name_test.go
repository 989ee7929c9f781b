package snapstore

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

func FuzzName(f *testing.F) {
	f.Add("1-2-3")
	f.Add("01-2-3")
	f.Add("1-2-3-4")
	f.Fuzz(func(t *testing.T, id string) {
		n, err := parseName(id)
		if err != nil {
			if _, ok := errors.AsType[*diskfile.Finding](err); !ok {
				t.Fatal(err)
			}
			return
		}
		if again := fmt.Sprintf("%d-%d-%d", n.term, n.index, n.ms); again != id {
			t.Errorf("%q is read as %q", id, again)
		}
	})
}

func TestNewestFirst(t *testing.T) {
	want := []string{"3-5-1", "2-20-9", "2-20-8", "2-3-100"}
	var names []name
	for _, id := range want {
		n, err := parseName(id)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, n)
	}
	slices.Reverse(names)
	slices.SortFunc(names, older)
	var got []string
	for _, n := range names {
		got = append(got, n.id)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
