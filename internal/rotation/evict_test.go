package rotation

import (
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// An operator evicts the node that he means, and no other: an eviction cannot be undone.
func TestEvictee(t *testing.T) {
	b, c, gone := "b"+strings.Repeat("1", 31), "c"+strings.Repeat("2", 31), strings.Repeat("d", 32)
	s := state.New()
	for id, name := range map[string]string{b: "n1", c: b} { // one calls itself by the ID of the other
		s.Servers = append(s.Servers, id)
		s.Members, _, _ = s.Members.Insert([]byte(id), state.Member{ID: id, Name: name})
	}
	for node, want := range map[string]string{
		"n1": b, b: b, c: c, b[:4]: b, gone: gone,
		"b": "", // the name of a node that was removed
		"":  "",
	} {
		if v, why := evictee(s, node); v.Node != want || (why == "") != (want != "") {
			t.Errorf("%q is %q, %q, want %q", node, v.Node, why, want)
		}
	}
}
