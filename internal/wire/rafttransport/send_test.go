package rafttransport

import (
	"testing"

	"github.com/hashicorp/raft"
)

// Many large entries go in several requests: one that a slow line cannot carry in time would be
// sent for ever.
func TestLargeEntriesAreCut(t *testing.T) {
	for _, c := range []struct {
		sizes []int
		want  int
	}{
		{[]int{1, 1, 1}, 3},
		{[]int{maxAppend, 1}, 1},
		{[]int{maxAppend * 2, 1}, 1}, // one goes in any case
		{[]int{maxAppend / 2, maxAppend / 2, 1}, 2},
	} {
		req := new(raft.AppendEntriesRequest)
		for _, size := range c.sizes {
			req.Entries = append(req.Entries, &raft.Log{Data: make([]byte, size)})
		}
		if cut(req); len(req.Entries) != c.want {
			t.Errorf("of %v %d are sent, want %d", c.sizes, len(req.Entries), c.want)
		}
	}
}
