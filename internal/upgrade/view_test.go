package upgrade

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// What the next version waits for is said in a sentence, and the leader raises it in time.
func TestText(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, test := range []struct {
		name    string
		members []Member
		want    string
		left    time.Duration // until the leader raises it; negative: it does not
	}{
		{"no node", nil, "version 1", -1},
		{"no newer program", []Member{{Name: "n1", Session: 1, Supports: 1}, {Name: "n2"}}, "version 1", -1},
		{"an older program", []Member{{Name: "n1", Session: 1, Supports: 2, Since: now}, {Name: "n2", Session: 2, Supports: 1}},
			"version 1; version 2 waits for n2, which supports 1", -1},
		{"nodes in the way", []Member{{Name: "n1", Session: 1, Supports: 3, Since: now}, {Name: "n2"}, {Name: "n3", Session: 3}},
			"version 1; version 2 waits for n2, which is away; n3, which has not said what it supports", -1},
		{"a node that does not lead", []Member{{Name: "n1", Session: 1, Supports: 2}}, "version 1; version 2 comes when all have supported it for an hour", -1},
		{"the leader", []Member{{Name: "n1", Session: 1, Supports: 2, Since: ago(time.Hour)}, {Name: "n2", Session: 2, Supports: 2, Since: ago(17 * time.Minute)}},
			"version 1; version 2 comes in 43 min", 43 * time.Minute},
		{"the leader, in the last minute", []Member{{Name: "n1", Session: 1, Supports: 2, Since: ago(Rest - time.Second)}}, "version 1; version 2 comes in 1 min", time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := View{Version: 1, Members: test.members}
			if got := v.Text(now); got != test.want {
				t.Errorf("it says %q, want %q", got, test.want)
			}
			if left, free := v.left(now); free != (test.left >= 0) || free && left != test.left {
				t.Errorf("the version is raised in %v: %v; want %v", left, free, test.left)
			}
		})
	}
}

// The version is raised for the sessions whose processes have said that they support it.
func TestChange(t *testing.T) {
	v := View{Version: 1, Members: []Member{{ID: "a", Session: 7, Supports: 2}, {ID: "b", Session: 8, Supports: 3}}}
	want := state.RaiseVersion{To: 2, Sessions: []state.SessionOf{{Node: "a", Number: 7}, {Node: "b", Number: 8}}}
	if diff := cmp.Diff(want, v.change()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
