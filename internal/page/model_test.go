package page

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/internal/view/viewtest"
	"github.com/flotilla-ha/flotilla/status"
)

const date = 24 * time.Hour

// modelOf returns what the page of n1 says about three nodes, each of which f has changed.
func modelOf(t *testing.T, f func(s *status.Status)) model {
	t.Helper()
	all := viewtest.ThreeNodes()
	for _, s := range all {
		f(s)
	}
	return newModel(viewtest.ClusterOf(t, all, nil), nil, viewtest.IDOne, viewtest.Today())
}

// The head counts what there is to do, and the worst decides the colour.
func TestHead(t *testing.T) {
	all := viewtest.Clusters(t)
	type head struct {
		Title, Cluster, Summary string
		Grade                   view.Grade
	}
	for name, want := range map[string]head{
		"well":     {"No problems – cluster 3f9a0c12 – flotilla", "Cluster 3f9a0c12", "Nothing to do", view.Good},
		"drained":  {"1 problem – cluster 3f9a0c12 – flotilla", "Cluster 3f9a0c12", "1 thing worth a look", view.Odd},
		"evicting": {"1 problem – cluster 3f9a0c12 – flotilla", "Cluster 3f9a0c12", "1 thing to do", view.Bad},
		"lost":     {"4 problems – cluster 3f9a0c12 – flotilla", "Cluster 3f9a0c12", "2 things to do, 2 things worth a look", view.Bad},
		"new":      {"1 problem – no cluster yet – flotilla", "No cluster yet", "1 thing to do", view.Bad},
	} {
		t.Run(name, func(t *testing.T) {
			m := newModel(all[name], nil, viewtest.IDOne, viewtest.Today())
			if diff := cmp.Diff(want, head{m.Title, m.Cluster, m.Summary, m.Grade}); diff != "" {
				t.Errorf("the head (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("no answer", func(t *testing.T) {
		m := failedModel(errors.New("the status of \x1b is malformed"), nil, viewtest.IDOne, viewtest.Today())
		got := head{m.Title, m.Cluster, m.Summary, m.Grade}
		if diff := cmp.Diff(head{"1 problem – unknown cluster – flotilla", "Unknown cluster", "1 thing to do", view.Bad}, got); diff != "" {
			t.Errorf("the head (-want +got):\n%s", diff)
		}
		if got := m.Problems[0].Text.Short; got != `"the status of \x1b is malformed"` {
			t.Errorf("the problem is %s", got)
		}
	})
}

func TestFacts(t *testing.T) {
	all := viewtest.Clusters(t)
	for name, want := range map[string][]string{
		"well": {"Leader: n1 good", "Term: 4 good", "Entry: 812 good", "Voters there: 3 of 3 good", "Failures tolerated: 1 good"},
		"lost": {"Leader: none bad", "Term: 4 good", "Entry: 812 good", "Voters there: 1 of 3 bad", "Failures tolerated: 0 bad"},
		"absent": {
			"Leader: n1 good", "Term: 4 good", "Entry: 812 good", "Voters there: 2 of 3 odd", "Failures tolerated: 0 good",
		},
		"new": nil,
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range newModel(all[name], nil, "", viewtest.Today()).Facts {
				got = append(got, fmt.Sprintf("%s: %s %v", f.Name, f.Value.Short, f.Grade))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the facts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNodes(t *testing.T) {
	m := modelOf(t, func(s *status.Status) {
		s.Members[1].ClockAhead, s.Members[2].ClockAhead = 3*time.Minute, -2*time.Hour
		s.Members[1].Zone, s.Members[1].Supports = "hall 1", 2
		if s.Name == "n1" {
			s.Index = 820
		}
		if s.Name == "n3" {
			s.Lease = status.Lease{}
			s.Waiting = slices.Repeat([]status.Wait{{What: "a majority", Why: "n2", Since: viewtest.Today().Add(-time.Minute)}}, maxWaits+2)
		}
	})
	type row struct {
		Name, State, Raft, Lease, Share, Lag, Clock, Zone, Supports string
		Leads, Asked                                                bool
		Notes                                                       int
	}
	var got []row
	for _, n := range m.Nodes.Rows {
		got = append(got, row{n.Name.Short, n.State, n.Raft, n.Lease, n.Share, n.Lag, n.Clock, n.Zone.Short, n.Supports, n.Leads, n.Asked, len(n.Notes)})
	}
	want := []row{
		{"n1", "ready", "leads", "540 ms", "54.00%", "0", "right", "", "", true, true, 0},
		{"n2", "ready", "votes", "541 ms", "54.10%", "7", "3 min ahead", "hall 1", "2", false, false, 0},
		{"n3", "ready", "votes", "none", "", "6", "2 h behind", "", "", false, false, maxWaits + 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the nodes (-want +got):\n%s", diff)
	}
	if n := m.Nodes; !n.Zones || !n.Version || n.Scale != "1.0 s" || n.ByNode != "n1" {
		t.Errorf("zones %v, versions %v, scale %s, by %s", n.Zones, n.Version, n.Scale, n.ByNode)
	}
}

func TestCertificates(t *testing.T) {
	today := viewtest.Today()
	m := modelOf(t, func(s *status.Status) {
		from := today.Add(-30 * date)
		s.Certificates = []status.Certificate{
			{Name: "later", NotAfter: today.Add(80 * date), DaysLeft: 80},
			{Name: "soon", Issuer: "R11", NotBefore: from, NotAfter: from.Add(90 * date), DaysLeft: 60, Renewal: from.Add(60 * date)},
			{Name: "gone", NotBefore: today.Add(-92 * date), NotAfter: today.Add(-2 * date), DaysLeft: -2, Err: "refused", Next: today.Add(time.Hour), Failures: 3},
			{Name: "new", SelfSigned: true},
		}
		if s.Name == "n2" {
			s.Certificates = append(s.Certificates[:1:1], status.Certificate{Name: "own", Err: "e"})
		}
		s.OnDemand = 7
	})
	type row struct{ Name, Days, State, Nodes, Next, Err, Life string }
	var got []row
	for _, c := range m.Certificates.Rows {
		bar := ""
		if c.Life != nil {
			bar = c.Life.Passed + " " + c.Life.Renewal + " " + c.Life.Title
		}
		got = append(got, row{c.Name.Short, c.Days, fmt.Sprint(c.State.Short, "/", c.Grade), c.Nodes.Short, c.Next.Ago, c.Err.Short, bar})
	}
	want := []row{
		{"new", "", "self-signed for now/odd", "n1, n3", "", "", ""},
		{"own", "", "there is none yet/bad", "n2", "", "e", ""},
		{"gone", "-2", "expired on 2026-11-23/bad", "n1, n3", "in 60 min", "refused", "100.00%  issued on 2026-08-25, valid until 2026-11-23"},
		{"soon", "60", "/good", "n1, n3", "", "", "33.33% 66.67% issued on 2026-10-26, to be renewed on 2026-12-25, valid until 2027-01-24"},
		{"later", "80", "/good", "all", "", "", ""},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the certificates (-want +got):\n%s", diff)
	}
	if c := m.Certificates; c.OnDemand != 7 || c.More != 0 {
		t.Errorf("%d on demand, %d more", c.OnDemand, c.More)
	}
}

func TestLists(t *testing.T) {
	now := viewtest.Today()
	m := modelOf(t, func(s *status.Status) {
		s.Certificates, s.Roles = nil, nil
		for i := range maxCertificates + 30 {
			s.Certificates = append(s.Certificates, status.Certificate{Name: fmt.Sprint(i), Err: "e"})
			s.Roles = append(s.Roles, status.Role{Name: fmt.Sprint(i)})
		}
	})
	var many []event.Event
	for i := range maxEvents + 10 {
		many = append(many, event.Event{Number: uint64(i), Time: now.Add(time.Duration(i) * time.Second), Text: fmt.Sprint(i)})
	}
	e := newEvents(many, now)
	got := []int{
		len(m.Certificates.Rows), m.Certificates.More, len(m.Roles.Rows), m.Roles.More, len(m.Problems), m.MoreProblems,
		len(e.Newest), len(e.Older),
	}
	if diff := cmp.Diff([]int{100, 30, 100, 30, 100, 30, 20, 236}, got); diff != "" {
		t.Errorf("the lengths (-want +got):\n%s", diff)
	}
	if first, last := e.Newest[0].Text.Short, e.Older[len(e.Older)-1].Text.Short; first != "265" || last != "10" {
		t.Errorf("from %s to %s", first, last)
	}
}

func TestUpkeep(t *testing.T) {
	all := viewtest.Clusters(t)
	for name, want := range map[string]*backup{
		"well":    nil,
		"backed":  {Name: text{Short: "flotilla-64951a4a-20260228-120000.backup"}, Node: text{Short: "n2"}, At: at(viewtest.Today().Add(-time.Hour), viewtest.Today()), Every: "24 h"},
		"stopped": {Name: text{Short: "flotilla-64951a4a-20260228-120000.backup"}, Node: text{Short: "n2"}, At: at(viewtest.Today().Add(-300*time.Hour), viewtest.Today()), Every: "24 h", Stopped: true},
		"unsafe": {
			Name: text{Short: "flotilla-64951a4a-20260228-120000.backup"}, Node: text{Short: "n2"}, At: at(viewtest.Today().Add(-30*time.Hour), viewtest.Today()), Every: "24 h",
			Late: true, Failing: []text{{Short: "n2: storing it: the disk is full"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(want, newModel(all[name], nil, "", viewtest.Today()).Upkeep.Backup); diff != "" {
				t.Errorf("the backup (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("space", func(t *testing.T) {
		var got []string
		for _, s := range newModel(all["crowded"], nil, "", viewtest.Today()).Upkeep.Space {
			got = append(got, fmt.Sprintf("%s: %s %s %v", s.What.Short, s.Limit, s.Share, s.Grade))
		}
		want := []string{
			"records of programs: 96 % of 100 bytes 96.00% bad", "certificates: 96 % of 100 bytes 96.00% bad",
			"locks: 85 % of 100 bytes 85.00% odd", "roles: 1 % of 100 bytes 1.00% good",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the space (-want +got):\n%s", diff)
		}
	})
}

// The page says of every cluster what "flotilla status" says: each state, and each remark.
func TestSaysWhatTheCommandSays(t *testing.T) {
	all := viewtest.Clusters(t)
	r := newRenderer()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			c := all[name]
			m := newModel(c, nil, viewtest.IDOne, viewtest.Today())
			got := visible(t, string(r.render(&m, time.Now(), nil).main))
			remarks := c.Remarks(viewtest.Today())
			for _, remark := range remarks {
				if !strings.Contains(got, strings.Join(strings.Fields(remark.String()), " ")) {
					t.Errorf("the remark is missing: %s\nin %s", remark, got)
				}
			}
			if calm := strings.Contains(got, "Nothing to do"); calm != (len(remarks) == 0) {
				t.Errorf("nothing to do: %v, with %d remarks", calm, len(remarks))
			}
			for i, n := range c.Nodes {
				state, _ := n.State()
				if row := m.Nodes.Rows[i]; row.State != state || row.Raft != c.Raft(&n) || row.Lease != n.Lease() || !strings.Contains(got, n.Name) {
					t.Errorf("%s is %v, want %s", n.Name, row, state)
				}
				if !strings.Contains(got, state) {
					t.Errorf("the state %s is missing", state)
				}
			}
			for _, role := range c.Roles() {
				if !strings.Contains(got, role.HolderName) || !strings.Contains(got, role.Note) {
					t.Errorf("the role %s is missing: %s, %s", role.Name, role.HolderName, role.Note)
				}
			}
		})
	}
}

func TestWords(t *testing.T) {
	now := viewtest.Today()
	for name, test := range map[string]struct{ got, want any }{
		"a short name":    {cut("n1", 4), text{Short: "n1"}},
		"a long one":      {cut("größer", 3), text{Short: "grö…", Full: "größer"}},
		"a hostile one":   {cut("\u202ea", 4), text{Short: `"\u202ea"`}},
		"a very long one": {len(cut(strings.Repeat("x", 9999), 3).Full), maxTitle + len("…")},
		"past":            {at(now.Add(-time.Hour), now).Ago, "60 min ago"},
		"future":          {at(now.Add(50*time.Hour), now).Ago, "in 2 d"},
		"present":         {at(now, now).Ago, "now"},
		"no time":         {at(time.Time{}, now), moment{}},
		"part":            {percent(1, 3), "33.33%"},
		"more than whole": {percent(5, 3), "100.00%"},
		"less than none":  {percent(-5, 3), "0.00%"},
		"of nothing":      {percent(5, 0), "0.00%"},
		"short":           {lasted(1300 * time.Millisecond), "1.3 s"},
		"long":            {lasted(3 * time.Minute), "3 min"},
		"keys":            {key("a", "b") == key("ab"), false},
		"a sentence":      {sentence("über"), "Über"},
		"no sentence":     {sentence(""), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, test.got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
