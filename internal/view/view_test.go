package view_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/internal/view/viewtest"
	"github.com/flotilla-ha/flotilla/status"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Every cluster is judged as a whole, and each node for itself.
func TestHealth(t *testing.T) {
	var out bytes.Buffer
	write := func(name string, checks []view.Check) {
		fmt.Fprintf(&out, "-- %s\n", name)
		for _, c := range checks {
			mark := "  "
			if !c.Healthy {
				mark = "! "
			}
			fmt.Fprintf(&out, "%s%s: %s\n", mark, c.What, plaintext.Safe(c.Text))
		}
	}
	all := viewtest.Clusters(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		write(name, all[name].Health(viewtest.Today()))
	}
	for _, n := range all["odd"].Nodes {
		write("odd, node "+n.Name, all["odd"].NodeHealth(n))
	}
	viewtest.SameAsFile(t, *update, "health", out.String())
}

// The leader's description is believed, else that of the node that knows most.
func TestBest(t *testing.T) {
	for name, test := range map[string]struct {
		all  [3]status.Status
		best string
	}{
		"the leader":          {[3]status.Status{{Term: 4, Index: 9}, {Leader: viewtest.IDTwo, Term: 4, Index: 8}, {Term: 4, Index: 9}}, viewtest.IDTwo},
		"two claim to lead":   {[3]status.Status{{Leader: viewtest.IDOne, Term: 4, Index: 9}, {}, {Leader: viewtest.IDThree, Term: 5, Index: 8}}, viewtest.IDThree},
		"none, a later term":  {[3]status.Status{{Term: 4, Index: 9}, {Term: 5, Index: 1}, {Term: 4, Index: 10}}, viewtest.IDTwo},
		"none, a later entry": {[3]status.Status{{Term: 4, Index: 9}, {Term: 4, Index: 8}, {Term: 4, Index: 10}}, viewtest.IDThree},
		"all the same":        {[3]status.Status{}, viewtest.IDOne},
	} {
		t.Run(name, func(t *testing.T) {
			var all []*status.Status
			for i, id := range []string{viewtest.IDOne, viewtest.IDTwo, viewtest.IDThree} {
				test.all[i].ID = id
				all = append(all, &test.all[i])
			}
			if got := viewtest.ClusterOf(t, all, nil).Best.ID; got != test.best {
				t.Errorf("%s is believed, want %s", got, test.best)
			}
		})
	}
}

// A node of another version may say what this one does not understand.
func TestMalformedStatus(t *testing.T) {
	_, err := view.New(remote.StatusReply{Nodes: []remote.NodeStatus{{ID: viewtest.IDOne, Name: "n1", Status: []byte("{")}}})
	if err == nil || !strings.Contains(err.Error(), "the status of n1 is malformed; it runs another version of flotilla") {
		t.Errorf("it says %v", err)
	}
}

func TestJSON(t *testing.T) {
	b, err := json.MarshalIndent(viewtest.Clusters(t)["absent"].JSON(), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	viewtest.SameAsFile(t, *update, "status_absent_json", string(b)+"\n")
}

// A zone may be lost if the voters elsewhere that are there now are a majority.
func TestZoneTolerance(t *testing.T) {
	const none = "there is no line"
	for name, test := range map[string]struct {
		zones string // of n1, n2 and n3
		gone  bool   // n3 does not answer
		want  string
	}{
		"no zones":             {"  ", false, none},
		"three":                {"x y z", false, "any one zone may be lost"},
		"two":                  {"x x y", false, "no majority is left if one of these zones is lost: x"},
		"one node has a zone":  {"x  ", false, "any one zone may be lost"},
		"one is lost already":  {"x y z", true, "no majority is left if one of these zones is lost: x, y"},
		"its zone has another": {"x y y", true, "no majority is left if one of these zones is lost: x, y"},
	} {
		t.Run(name, func(t *testing.T) {
			all := viewtest.ThreeNodes()
			for i, zone := range strings.Split(test.zones, " ") {
				all[0].Members[i].Zone = zone
			}
			if test.gone {
				all[2] = nil
			}
			if got := cmp.Or(viewtest.ClusterOf(t, all, nil).ZoneTolerance(), none); got != test.want {
				t.Errorf("it says %q, want %q", got, test.want)
			}
		})
	}
}

func TestFind(t *testing.T) {
	c := viewtest.Clusters(t)["well"]
	for text, want := range map[string]string{
		"n2":             "n2",
		viewtest.IDThree: "n3",
		"5f3a":           "n1",
		"5f3":            "there is no node 5f3; the nodes are n1, n2, n3",
		"n":              "there is no node n;",
		"":               "there is no node",
	} {
		got, err := c.Find(text)
		if err != nil {
			got.Name = err.Error()
		}
		if !strings.HasPrefix(got.Name, want) {
			t.Errorf("%q finds %s, want %s", text, got.Name, want)
		}
	}
	c.Nodes[1].Name = "n1"
	if _, err := c.Find("n1"); err == nil || !strings.Contains(err.Error(), "several nodes are called n1; give one of the IDs "+viewtest.IDOne) {
		t.Errorf("a name that two have: %v", err)
	}
	if n, err := c.Find(viewtest.IDTwo); err != nil || n.ID != viewtest.IDTwo {
		t.Errorf("the ID of one of them: %v, %v", n, err)
	}
}

// What roles and versions are called is the same in tables and on pages.
func TestRoles(t *testing.T) {
	all := viewtest.ThreeNodes()
	for _, s := range all {
		s.Roles = append(s.Roles,
			status.Role{Name: "x", Holder: viewtest.IDOne, HoldDown: true}, status.Role{Name: "y", Holder: "feedfeedfeedfeed", Yields: true}, status.Role{Name: "z"})
	}
	type role struct {
		Name, Holder, HeldFor, Note string
		Grade                       view.Grade
	}
	var got []role
	for _, r := range viewtest.ClusterOf(t, all, nil).Roles() {
		got = append(got, role{r.Name, r.HolderName, r.HeldFor(viewtest.Today()), r.Note, r.Grade})
	}
	want := []role{
		{"mailer", "n2", "90 min", "", view.Good},
		{"vip/198.18.0.100", "n3", "3 d", "moved by hand", view.Good},
		{"x", "n1", "", "its holder is gone", view.Bad},
		{"y", "feedfeed", "", "is being handed over", view.Odd},
		{"z", "none known", "", "", view.Bad},
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("the roles (-want +got):\n%s", diff)
	}
}

func TestSupports(t *testing.T) {
	all := viewtest.Clusters(t)
	for name, want := range map[string]map[string]string{
		"well":      nil,
		"upgraded":  nil,
		"upgrading": {viewtest.IDOne: "version 1", viewtest.IDTwo: "version 2", viewtest.IDThree: "version 1"},
		"waiting":   {viewtest.IDOne: "version 2", viewtest.IDTwo: "version 2"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := gocmp.Diff(want, all[name].Supports()); diff != "" {
				t.Errorf("they support something else (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLease(t *testing.T) {
	for name, test := range map[string]struct {
		status *status.Status
		want   string
	}{
		"held":         {&status.Status{Lease: status.Lease{Held: true, LeftMillis: 540}}, "540 ms"},
		"lost":         {&status.Status{}, "none"},
		"says nothing": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := view.Node{Status: test.status}
			if got := n.Lease(); got != test.want {
				t.Errorf("it is %q, want %q", got, test.want)
			}
		})
	}
}

func TestCertificateState(t *testing.T) {
	later := viewtest.Today().Add(time.Hour)
	for name, test := range map[string]struct {
		cert  status.Certificate
		text  string
		grade view.Grade
	}{
		"well":               {status.Certificate{NotAfter: later, DaysLeft: 60}, "", view.Good},
		"the last day":       {status.Certificate{NotAfter: later}, "", view.Odd},
		"not renewed":        {status.Certificate{NotAfter: later, DaysLeft: 60, Err: "e"}, "", view.Odd},
		"not renewed lately": {status.Certificate{NotAfter: later, DaysLeft: 2, Err: "e"}, "", view.Bad},
		"expired":            {status.Certificate{NotAfter: later, DaysLeft: -1}, "expired on 2026-11-25", view.Bad},
		"none":               {status.Certificate{Err: "e"}, "there is none yet", view.Bad},
		"self-signed":        {status.Certificate{SelfSigned: true}, "self-signed for now", view.Odd},
	} {
		t.Run(name, func(t *testing.T) {
			c := view.Certificate{Certificate: test.cert}
			if text, grade := c.State(); text != test.text || grade != test.grade {
				t.Errorf("it is %q, %v, want %q, %v", text, grade, test.text, test.grade)
			}
		})
	}
}
