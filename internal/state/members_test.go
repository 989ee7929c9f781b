package state

import "testing"

// A member is another one's former self if that one says so.
func TestFormerNodes(t *testing.T) {
	s := New()
	s.Servers = []string{"a", "b", "c"}
	for _, m := range []Member{{ID: "a"}, {ID: "b", Former: "c"}, {ID: "d", Former: "a"}} {
		s.Members, _, _ = s.Members.Insert([]byte(m.ID), m)
	}
	for id, want := range map[string]bool{"c": true, "b": false, "a": false} { // d is no member
		if got := s.IsFormer(id); got != want {
			t.Errorf("%s is a former node: %v, want %v", id, got, want)
		}
	}
}
