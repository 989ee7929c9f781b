package view

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden is sameAsFile for output whose lines must fit into the columns.
func golden(t *testing.T, name, got string) {
	t.Helper()
	for line := range strings.Lines(got) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > term.Columns {
			t.Errorf("a line has %d characters: %s", n, line)
		}
		if strings.HasSuffix(line, " \n") {
			t.Errorf("a line ends with space: %q", line)
		}
	}
	sameAsFile(t, name, got)
}

// sameAsFile compares what was printed with a file.
func sameAsFile(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), got); diff != "" {
		t.Errorf("it prints something else; -update writes the file anew (-want +got):\n%s", diff)
	}
}

const (
	idOne   = "5f3a9c01d2e84b7790ab13cd5ef60718"
	idTwo   = "8810b2f34c5d6e7f8091a2b3c4d5e6f7"
	idThree = "c4d5e6f70112233445566778899aabbc"
)

// today is when the clusters of the tests are looked at.
func today() time.Time { return time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) }

// threeNodes is what the nodes of a healthy cluster say. n1 leads and is asked.
func threeNodes() []*flotilla.Status {
	members := []flotilla.Member{
		{ID: idOne, Name: "n1", Addr: "10.0.0.1:7373", Voter: true, Present: true},
		{ID: idTwo, Name: "n2", Addr: "10.0.0.2:7373", Voter: true, Present: true},
		{ID: idThree, Name: "n3", Addr: "10.0.0.3:7373", Voter: true, Present: true},
	}
	var all []*flotilla.Status
	for i, m := range members {
		all = append(all, &flotilla.Status{
			ID: m.ID, Name: m.Name, Addr: m.Addr, Cluster: "3f9a0c12aabbccddeeff001122334455", Leader: idOne, LeaderName: "n1", Term: 4, Index: 812 + uint64(i),
			Ready:   true,
			Lease:   flotilla.LeaseStatus{Held: true, LeftMillis: int64(540 + i), Session: 70},
			Members: append([]flotilla.Member(nil), members...),
			Roles: []flotilla.RoleStatus{
				{Name: "mailer", Holder: idTwo, Fence: 801, Waiting: 2, Since: today().Add(-90 * time.Minute)},
				{Name: "vip/198.18.0.100", Group: "vip", Holder: idThree, Fence: 640, Waiting: 2, Since: today().Add(-72 * time.Hour), Pinned: true},
			},
			Certificates: []flotilla.Certificate{
				{Name: "api.example.com", Issuer: "R11", Serial: "4a1b", NotAfter: today().Add(61*24*time.Hour + time.Hour), DaysLeft: 61},
				{Name: "www.example.com", Issuer: "R11", Serial: "4a1c", NotAfter: today().Add(61*24*time.Hour + time.Hour), DaysLeft: 61},
			},
			Tickets: flotilla.TicketStatus{Key: "9c41d07e", AgeSeconds: 11_400, Previous: 2},
		})
	}
	return all
}

// clusterOf is what an operator gets from nodes. Nil is a node that says nothing.
func clusterOf(t *testing.T, all []*flotilla.Status, why map[string]string) *Cluster {
	t.Helper()
	var reply remote.StatusReply
	ids := []string{idOne, idTwo, idThree}
	for i, s := range all {
		n := remote.NodeStatus{ID: ids[i], Name: "n" + string(rune('1'+i)), Addr: "10.0.0." + string(rune('1'+i)) + ":7373"}
		n.Why = why[n.Name]
		if s != nil {
			b, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			n.Status = b
		}
		reply.Nodes = append(reply.Nodes, n)
	}
	c, err := New(reply)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// clusters are clusters in all sorts of states.
func clusters(t *testing.T) map[string]*Cluster {
	t.Helper()
	each := func(all []*flotilla.Status, f func(*flotilla.Status)) []*flotilla.Status {
		for _, s := range all {
			if s != nil {
				f(s)
			}
		}
		return all
	}
	evicting := threeNodes()
	evicting[1].Waiting = []flotilla.WaitStatus{{
		What: "an eviction has not ended", Why: "n4 was evicted, and what it knows is in use: run the command again (flotilla evict n4)", Since: today(),
	}}

	drained := threeNodes()
	drained[1].Draining, drained[1].Drained = true, true

	absent := threeNodes()
	absent[2] = nil
	each(absent, func(s *flotilla.Status) {
		s.Members[2].Present = false
		s.Roles[1].HoldDown, s.Roles[1].Pinned = true, false
		s.Roles[0].Yields = true
	})

	lost := threeNodes()
	lost[1], lost[2] = nil, nil
	lost[0].Leader, lost[0].LeaderName, lost[0].Ready, lost[0].Lease = "", "", false, flotilla.LeaseStatus{}

	strange := threeNodes()
	each(strange, func(s *flotilla.Status) { s.Members[1].Suspect = true })
	strange[1] = nil
	strange[2].Err = "the disk fails: raft log: store entries: no space left on device; mend it and start the node again"
	strange[2].Ready = false
	for i, s := range []*flotilla.Status{strange[0], strange[2]} {
		s.Certificates[0].DaysLeft, s.Certificates[0].NotAfter = -2, today().Add(-25*time.Hour)
		s.Certificates[0].Err = "acme: error presenting token: the name api.example.com leads to 192.0.2.7, where somebody else answers"
		s.Certificates[1].Serial = []string{"4a1c", "4a1d"}[i]
		s.Certificates = append(s.Certificates, flotilla.Certificate{Name: "new.example.com", SelfSigned: true})
		s.Roles = nil
		s.Tickets = flotilla.TicketStatus{}
	}

	contested := threeNodes()
	contested[2].Roles[1].Remark = "another machine, with the hardware address 02:00:5e:00:53:01, claims 198.18.0.100: look for it there, and take the address away"
	each(contested, func(s *flotilla.Status) {
		s.Roles = append(s.Roles, flotilla.RoleStatus{Name: "vip/198.18.0.101", Remark: "cannot be put in place here: IPv6 is switched off on eth0"})
	})

	hostile := threeNodes()
	each(hostile, func(s *flotilla.Status) {
		s.Roles[0].Name = "\x1b[2J" + strings.Repeat("long", 40)
		s.Members[0].Name = "n1"
	})
	crowded := threeNodes()
	for i, s := range crowded {
		s.Space = []flotilla.SpaceStatus{
			{What: "records of programs", Bytes: int64(70 + 13*i), Limit: 100},
			{What: "certificates", Bytes: 96, Limit: int64(200 - 50*i)},
			{What: "locks", Bytes: 85, Limit: 100},
			{What: "roles", Bytes: 1, Limit: 100},
		}
		s.Certificates[0].Err, s.Certificates[0].DaysLeft = "acme: rate limited", 2
		s.Certificates[0].Next = today().Add(time.Hour)
		s.Certificates = append(s.Certificates, flotilla.Certificate{Name: "none.example.com", Err: "acme: unauthorized"})
		s.Members[2].Voter = false
	}
	backedUp, unsafe := threeNodes(), threeNodes()
	backup := func(age time.Duration) *flotilla.BackupStatus {
		return &flotilla.BackupStatus{
			Time: today().Add(-age), Name: "flotilla-64951a4a-20260228-120000.backup", Node: "n2", Every: 24 * time.Hour, Makes: true,
		}
	}
	each(backedUp, func(s *flotilla.Status) { s.Backup = backup(time.Hour) })
	each(unsafe, func(s *flotilla.Status) { s.Backup = backup(30 * time.Hour) })
	unsafe[1].Backup.Err = "storing it: the disk is full"
	unsafe[2].Backup.Makes = false
	stopped := threeNodes() // nobody is to make backups any more
	each(stopped, func(s *flotilla.Status) { s.Backup = backup(300 * time.Hour); s.Backup.Makes = false })
	zones := threeNodes()
	each(zones, func(s *flotilla.Status) {
		s.Members[0].Zone, s.Members[1].Zone, s.Members[2].Zone = "hall 1", "hall 2", "hall 1"
		s.Members[2].Voter, s.Members[2].Demoted = false, true
		s.Members[2].Why = "an operator has demoted it (flotilla members promote undoes that)"
		s.Members[1].Witness = true
		s.Roles = nil
	})
	of := func(supports ...uint64) func(*flotilla.Status) {
		return func(s *flotilla.Status) {
			s.Version = 1
			for i := range s.Members {
				s.Members[i].Supports = supports[i]
			}
			s.Roles, s.Certificates, s.Tickets = nil, nil, flotilla.TicketStatus{}
		}
	}
	upgrading := each(threeNodes(), of(2, 2, 1))
	*upgrading[0] = flotilla.Status{ // an older program, which leads
		ID: idOne, Name: "n1", Addr: "10.0.0.1:7373", Cluster: "3f9a0c12aabbccddeeff001122334455", Leader: idOne, Term: 4, Index: 812, Ready: true,
		Members: upgrading[1].Members,
	}
	each(upgrading, func(s *flotilla.Status) { s.Members = slices.Clone(s.Members); s.Members[0].Supports = 0 })
	each(upgrading[1:], func(s *flotilla.Status) { s.Members[0].Supports = 1 })
	upgraded := each(threeNodes(), of(2, 2, 2))
	for i := range upgraded[0].Members {
		upgraded[0].Members[i].Since = today().Add(-time.Duration(17+i) * time.Minute)
	}
	waiting := each(threeNodes(), of(2, 2, 0))
	waiting[2] = nil
	each(waiting, func(s *flotilla.Status) { s.Members[2].Present = false })
	fresh := []*flotilla.Status{{ID: idOne, Name: "n1", Addr: "10.0.0.1:7373"}}
	return map[string]*Cluster{
		"well":     clusterOf(t, threeNodes(), nil),
		"drained":  clusterOf(t, drained, nil),
		"evicting": clusterOf(t, evicting, nil),
		"absent":   clusterOf(t, absent, map[string]string{"n3": "nobody listens at its address"}),
		"lost": clusterOf(t, lost, map[string]string{
			"n1": "the cluster has no leader that it can reach; the peer at 10.0.0.2:7373 says last: connection refused",
			"n2": "nobody listens at its address", "n3": "no answer in time",
		}),
		"odd":       clusterOf(t, strange, map[string]string{"n2": "no answer in time"}),
		"hostile":   clusterOf(t, hostile, nil),
		"contested": clusterOf(t, contested, nil),
		"crowded":   clusterOf(t, crowded, nil),
		"backed":    clusterOf(t, backedUp, nil),
		"unsafe":    clusterOf(t, unsafe, nil),
		"stopped":   clusterOf(t, stopped, nil),
		"zones":     clusterOf(t, zones, nil),
		"upgrading": clusterOf(t, upgrading, nil),
		"upgraded":  clusterOf(t, upgraded, nil),
		"waiting":   clusterOf(t, waiting, map[string]string{"n3": "nobody listens at its address"}),
		"new":       clusterOf(t, fresh, map[string]string{"n1": "it has found no cluster yet"}),
	}
}

func TestWrite(t *testing.T) {
	for name, c := range clusters(t) {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			c.Write(&out, term.Style{}, today())
			golden(t, "status_"+name, out.String())
			if strings.Contains(out.String(), "\x1b") {
				t.Error("it is painted, or passes on what a node has said")
			}
		})
	}
	t.Run("odd painted", func(t *testing.T) {
		var out bytes.Buffer
		clusters(t)["odd"].Write(&out, term.Style{On: true}, today())
		sameAsFile(t, "status_odd_painted", out.String())
	})
	t.Run("members zones", func(t *testing.T) {
		var out bytes.Buffer
		clusters(t)["zones"].WriteMembers(&out, term.Style{})
		golden(t, "members_zones", out.String())
	})
	t.Run("roles absent", func(t *testing.T) {
		var out bytes.Buffer
		clusters(t)["absent"].WriteRoles(&out, term.Style{}, today())
		golden(t, "roles_absent", out.String())
	})
}

// Every cluster is judged as a whole, and each node for itself.
func TestHealth(t *testing.T) {
	var out bytes.Buffer
	write := func(name string, checks []Check) {
		fmt.Fprintf(&out, "-- %s\n", name)
		for _, c := range checks {
			mark := "  "
			if !c.Healthy {
				mark = "! "
			}
			fmt.Fprintf(&out, "%s%s: %s\n", mark, c.What, term.Safe(c.Text))
		}
	}
	all := clusters(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		write(name, all[name].Health(today()))
	}
	for _, n := range all["odd"].Nodes {
		write("odd, node "+n.Name, all["odd"].NodeHealth(n))
	}
	sameAsFile(t, "health", out.String())
}

func TestNodeState(t *testing.T) {
	present, suspect := flotilla.Member{Present: true}, flotilla.Member{Present: true, Suspect: true}
	for name, test := range map[string]struct {
		node         Node
		state, fault string
	}{
		"ready":              {Node{Member: present, Status: &flotilla.Status{Ready: true}}, "ready", ""},
		"drained":            {Node{Member: present, Status: &flotilla.Status{Draining: true, Drained: true}}, "drained", "an operator has drained it (flotilla undrain undoes that)"},
		"draining":           {Node{Member: present, Status: &flotilla.Status{Ready: true, Draining: true}}, "draining", "it is shutting down"},
		"not ready":          {Node{Member: present, Status: &flotilla.Status{}, why: "w"}, "not ready", "it is not ready: w"},
		"clock wrong":        {Node{Member: present, Status: &flotilla.Status{Ready: true, Clock: "c"}}, "clock wrong", "c"},
		"suspect":            {Node{Member: suspect, Status: &flotilla.Status{Ready: true}}, "suspect", "the leader has not heard from it lately"},
		"suspect and silent": {Node{Member: suspect, why: "w"}, "suspect", "the leader has not heard from it lately, and it does not answer: w"},
		"silent":             {Node{Member: present, why: "w"}, "silent", "it does not answer: w"},
		"absent":             {Node{why: "w"}, "absent", "it does not answer: w"},
		"failed":             {Node{Member: present, Status: &flotilla.Status{Ready: true, Err: "e"}}, "failed", "it takes no part in the cluster any more: e"},
		"failed for now":     {Node{Member: present, Status: &flotilla.Status{Err: "e", Retries: true}}, "failed", "it takes no part in the cluster for now: e"},
		"differs": {
			Node{Member: present, Status: &flotilla.Status{Ready: true, Peers: []flotilla.PeerStatus{{Name: "n2", Differs: []string{"X: 1 here, 2 there"}}}}},
			"ready", "its configuration differs from that of others: X: 1 here, 2 there (n2)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if state, _ := test.node.State(); state != test.state {
				t.Errorf("it is %s, want %s", state, test.state)
			}
			if fault := test.node.Fault(); fault != test.fault {
				t.Errorf("the fault is %q, want %q", fault, test.fault)
			}
		})
	}
}

// The leader's description is believed, else that of the node that knows most.
func TestBest(t *testing.T) {
	for name, test := range map[string]struct {
		all  [3]flotilla.Status
		best string
	}{
		"the leader":          {[3]flotilla.Status{{Term: 4, Index: 9}, {Leader: idTwo, Term: 4, Index: 8}, {Term: 4, Index: 9}}, idTwo},
		"two claim to lead":   {[3]flotilla.Status{{Leader: idOne, Term: 4, Index: 9}, {}, {Leader: idThree, Term: 5, Index: 8}}, idThree},
		"none, a later term":  {[3]flotilla.Status{{Term: 4, Index: 9}, {Term: 5, Index: 1}, {Term: 4, Index: 10}}, idTwo},
		"none, a later entry": {[3]flotilla.Status{{Term: 4, Index: 9}, {Term: 4, Index: 8}, {Term: 4, Index: 10}}, idThree},
		"all the same":        {[3]flotilla.Status{}, idOne},
	} {
		t.Run(name, func(t *testing.T) {
			var all []*flotilla.Status
			for i, id := range []string{idOne, idTwo, idThree} {
				test.all[i].ID = id
				all = append(all, &test.all[i])
			}
			if got := clusterOf(t, all, nil).Best.ID; got != test.best {
				t.Errorf("%s is believed, want %s", got, test.best)
			}
		})
	}
}

// A node of another version may say what this one does not understand.
func TestMalformedStatus(t *testing.T) {
	_, err := New(remote.StatusReply{Nodes: []remote.NodeStatus{{ID: idOne, Name: "n1", Status: []byte("{")}}})
	if err == nil || !strings.Contains(err.Error(), "the status of n1 is malformed; it runs another version of flotilla") {
		t.Errorf("it says %v", err)
	}
}

func TestJSON(t *testing.T) {
	b, err := json.MarshalIndent(clusters(t)["absent"].JSON(), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	sameAsFile(t, "status_absent_json", string(b)+"\n")
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
			all := threeNodes()
			for i, zone := range strings.Split(test.zones, " ") {
				all[0].Members[i].Zone = zone
			}
			if test.gone {
				all[2] = nil
			}
			if got := cmp.Or(clusterOf(t, all, nil).zoneTolerance(), none); got != test.want {
				t.Errorf("it says %q, want %q", got, test.want)
			}
		})
	}
}

func TestFind(t *testing.T) {
	c := clusters(t)["well"]
	for text, want := range map[string]string{
		"n2":    "n2",
		idThree: "n3",
		"5f3a":  "n1",
		"5f3":   "there is no node 5f3; the nodes are n1, n2, n3",
		"n":     "there is no node n;",
		"":      "there is no node",
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
	if _, err := c.Find("n1"); err == nil || !strings.Contains(err.Error(), "several nodes are called n1; give one of the IDs "+idOne) {
		t.Errorf("a name that two have: %v", err)
	}
	if n, err := c.Find(idTwo); err != nil || n.ID != idTwo {
		t.Errorf("the ID of one of them: %v, %v", n, err)
	}
}

func TestChanges(t *testing.T) {
	all := clusters(t)
	var out bytes.Buffer
	for _, step := range []struct{ before, now Facts }{
		{all["well"].Facts(), all["well"].Facts()},
		{all["well"].Facts(), all["drained"].Facts()},
		{all["drained"].Facts(), all["absent"].Facts()},
		{nil, all["lost"].Facts()},
		{all["lost"].Facts(), all["odd"].Facts()},
	} {
		out.WriteString("--\n")
		step.now.WriteChanges(&out, today(), step.before)
	}
	sameAsFile(t, "changes", out.String())
}
