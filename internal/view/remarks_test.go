package view_test

import (
	"maps"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/internal/view/viewtest"
	"github.com/flotilla-ha/flotilla/status"
)

// Each remark says what it is about, and how bad it is.
func TestRemarks(t *testing.T) {
	all := viewtest.Clusters(t)
	differs := viewtest.ThreeNodes()
	differs[0].Peers = []status.Peer{{Name: "n2", Differs: []string{"X: 1 here, 2 there"}}}
	all["differs"] = viewtest.ClusterOf(t, differs, nil)
	hostile := viewtest.ThreeNodes()
	hostile[1].Roles[0].Remark, hostile[1].Space = "\x1b[2J", []status.Space{{What: "\u202e", Bytes: 99, Limit: 100}}
	all["hostile"] = viewtest.ClusterOf(t, hostile, nil)
	type remark struct {
		Grade   view.Grade
		Subject string
	}
	for name, want := range map[string][]remark{
		"well":      nil,
		"lost":      {{view.Bad, ""}, {view.Bad, "n1"}, {view.Odd, "n2"}, {view.Odd, "n3"}},
		"drained":   {{view.Odd, "n2"}},
		"differs":   {{view.Odd, "n1"}}, // it is ready all the same
		"evicting":  {{view.Bad, ""}},
		"unsafe":    {{view.Odd, ""}},
		"crowded":   {{view.Bad, ""}, {view.Bad, ""}, {view.Odd, ""}, {view.Bad, "certificate api.example.com (n1, n2, n3)"}, {view.Bad, "certificate none.example.com (n1, n2, n3)"}},
		"contested": {{view.Odd, "n1: vip/198.18.0.101"}, {view.Odd, "n2: vip/198.18.0.101"}, {view.Odd, "n3: vip/198.18.0.100"}, {view.Odd, "n3: vip/198.18.0.101"}},
		"hostile":   {{view.Bad, ""}, {view.Odd, "n2: mailer"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []remark
			for _, r := range all[name].Remarks(viewtest.Today()) {
				got = append(got, remark{r.Grade, r.Subject})
				if r.Text == "" || plaintext.Safe(r.String()) != r.String() {
					t.Errorf("%q is no safe text", r)
				}
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("the remarks (-want +got):\n%s", diff)
			}
		})
	}
}

// A fault is never good, and what is healthy is never bad.
func TestGradesOfChecks(t *testing.T) {
	all := viewtest.Clusters(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			for _, c := range all[name].Health(viewtest.Today()) {
				if c.Healthy && c.Grade == view.Bad || !c.Healthy && c.Grade == view.Good {
					t.Errorf("%s: %s, healthy %v, is %v", c.What, c.Text, c.Healthy, c.Grade)
				}
			}
		})
	}
}
