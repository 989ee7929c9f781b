package kv

import (
	"bytes"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// Watches share the copy of a value, which is not the state's memory. A large one is copied for
// each.
func TestCopies(t *testing.T) {
	b := NewBackend(BackendConfig{})
	for _, test := range []struct {
		name   string
		size   int
		shared bool
	}{{"a value", 100, true}, {"the largest that is shared", maxShared, true}, {"a large one", maxShared + 1, false}} {
		t.Run(test.name, func(t *testing.T) {
			c := state.ItemChange{Name: state.ItemName("b", "k"), Item: &state.Item{Value: bytes.Repeat([]byte("v"), test.size), Version: 7}}
			first, second := b.eventOf(c).Entry.Value, b.eventOf(c).Entry.Value
			if !bytes.Equal(first, c.Item.Value) || !bytes.Equal(second, c.Item.Value) {
				t.Fatal("a copy differs")
			}
			if shared := &first[0] == &second[0]; shared != test.shared {
				t.Errorf("the copy is shared: %v, want %v", shared, test.shared)
			}
			_ = append(first, 'x')
			first[0] = 'x'
			if strings.Contains(string(c.Item.Value), "x") {
				t.Error("a change of a copy changes the state")
			}
		})
	}
}

// Another item in the same place has its own copy, also one of the same key and version: a restored
// state may have that.
func TestCopiesAreOfOneItem(t *testing.T) {
	b := NewBackend(BackendConfig{})
	for _, value := range []string{"old", "new", ""} {
		got := b.eventOf(state.ItemChange{Name: state.ItemName("b", "k"), Item: &state.Item{Value: []byte(value), Version: 7}}).Entry.Value
		if string(got) != value || got == nil {
			t.Errorf("the copy of %q is %q", value, got)
		}
	}
}
