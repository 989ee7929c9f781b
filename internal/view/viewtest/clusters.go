package viewtest

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/status"
)

// The IDs of the nodes n1, n2 and n3.
const (
	IDOne   = "5f3a9c01d2e84b7790ab13cd5ef60718"
	IDTwo   = "8810b2f34c5d6e7f8091a2b3c4d5e6f7"
	IDThree = "c4d5e6f70112233445566778899aabbc"
)

// Today is when the clusters of the tests are looked at.
func Today() time.Time { return time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) }

// ThreeNodes is what the nodes of a healthy cluster say. n1 leads and is asked.
func ThreeNodes() []*status.Status {
	members := []status.Member{
		{ID: IDOne, Name: "n1", Addr: "10.0.0.1:7373", Voter: true, Present: true},
		{ID: IDTwo, Name: "n2", Addr: "10.0.0.2:7373", Voter: true, Present: true},
		{ID: IDThree, Name: "n3", Addr: "10.0.0.3:7373", Voter: true, Present: true},
	}
	var all []*status.Status
	for i, m := range members {
		all = append(all, &status.Status{
			ID: m.ID, Name: m.Name, Addr: m.Addr, Cluster: "3f9a0c12aabbccddeeff001122334455", Leader: IDOne, LeaderName: "n1", Term: 4, Index: 812 + uint64(i),
			Ready:   true,
			Lease:   status.Lease{Held: true, LeftMillis: int64(540 + i), Session: 70},
			Members: append([]status.Member(nil), members...),
			Roles: []status.Role{
				{Name: "mailer", Holder: IDTwo, Fence: 801, Waiting: 2, Since: Today().Add(-90 * time.Minute)},
				{Name: "vip/198.18.0.100", Group: "vip", Holder: IDThree, Fence: 640, Waiting: 2, Since: Today().Add(-72 * time.Hour), Pinned: true},
			},
			Certificates: []status.Certificate{
				{Name: "api.example.com", Issuer: "R11", Serial: "4a1b", NotAfter: Today().Add(61*24*time.Hour + time.Hour), DaysLeft: 61},
				{Name: "www.example.com", Issuer: "R11", Serial: "4a1c", NotAfter: Today().Add(61*24*time.Hour + time.Hour), DaysLeft: 61},
			},
			Tickets: status.Tickets{Key: "9c41d07e", AgeSeconds: 11_400, Previous: 2},
		})
	}
	return all
}

// ClusterOf is what an operator gets from nodes. Nil is a node that says nothing.
func ClusterOf(t T, all []*status.Status, why map[string]string) *view.Cluster {
	t.Helper()
	var reply remote.StatusReply
	ids := []string{IDOne, IDTwo, IDThree}
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
	c, err := view.New(reply)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Clusters are clusters in all sorts of states, by a name for each.
func Clusters(t T) map[string]*view.Cluster {
	t.Helper()
	each := func(all []*status.Status, f func(*status.Status)) []*status.Status {
		for _, s := range all {
			if s != nil {
				f(s)
			}
		}
		return all
	}
	evicting := ThreeNodes()
	evicting[1].Waiting = []status.Wait{{
		What: "an eviction has not ended", Why: "n4 was evicted, and what it knows is in use: run the command again (flotilla evict n4)", Since: Today(),
	}}

	drained := ThreeNodes()
	drained[1].Draining, drained[1].Drained = true, true

	absent := ThreeNodes()
	absent[2] = nil
	each(absent, func(s *status.Status) {
		s.Members[2].Present = false
		s.Roles[1].HoldDown, s.Roles[1].Pinned = true, false
		s.Roles[0].Yields = true
	})

	lost := ThreeNodes()
	lost[1], lost[2] = nil, nil
	lost[0].Leader, lost[0].LeaderName, lost[0].Ready, lost[0].Lease = "", "", false, status.Lease{}

	strange := ThreeNodes()
	each(strange, func(s *status.Status) { s.Members[1].Suspect = true })
	strange[1] = nil
	strange[2].Err = "the disk fails: raft log: store entries: no space left on device; mend it and start the node again"
	strange[2].Ready = false
	for i, s := range []*status.Status{strange[0], strange[2]} {
		s.Certificates[0].DaysLeft, s.Certificates[0].NotAfter = -2, Today().Add(-25*time.Hour)
		s.Certificates[0].Err = "acme: error presenting token: the name api.example.com leads to 192.0.2.7, where somebody else answers"
		s.Certificates[1].Serial = []string{"4a1c", "4a1d"}[i]
		s.Certificates = append(s.Certificates, status.Certificate{Name: "new.example.com", SelfSigned: true})
		s.Roles = nil
		s.Tickets = status.Tickets{}
	}

	contested := ThreeNodes()
	contested[2].Roles[1].Remark = "another machine, with the hardware address 02:00:5e:00:53:01, claims 198.18.0.100: look for it there, and take the address away"
	each(contested, func(s *status.Status) {
		s.Roles = append(s.Roles, status.Role{Name: "vip/198.18.0.101", Remark: "cannot be put in place here: IPv6 is switched off on eth0"})
	})

	hostile := ThreeNodes()
	each(hostile, func(s *status.Status) {
		s.Roles[0].Name = "\x1b[2J" + strings.Repeat("long", 40)
		s.Members[0].Name = "n1"
	})
	crowded := ThreeNodes()
	for i, s := range crowded {
		s.Space = []status.Space{
			{What: "records of programs", Bytes: int64(70 + 13*i), Limit: 100},
			{What: "certificates", Bytes: 96, Limit: int64(200 - 50*i)},
			{What: "locks", Bytes: 85, Limit: 100},
			{What: "roles", Bytes: 1, Limit: 100},
		}
		s.Certificates[0].Err, s.Certificates[0].DaysLeft = "acme: rate limited", 2
		s.Certificates[0].Next = Today().Add(time.Hour)
		s.Certificates = append(s.Certificates, status.Certificate{Name: "none.example.com", Err: "acme: unauthorized"})
		s.Members[2].Voter = false
	}
	backedUp, unsafe := ThreeNodes(), ThreeNodes()
	backup := func(age time.Duration) *status.Backup {
		return &status.Backup{
			Time: Today().Add(-age), Name: "flotilla-64951a4a-20260228-120000.backup", Node: "n2", Every: 24 * time.Hour, Makes: true,
		}
	}
	each(backedUp, func(s *status.Status) { s.Backup = backup(time.Hour) })
	each(unsafe, func(s *status.Status) { s.Backup = backup(30 * time.Hour) })
	unsafe[1].Backup.Err = "storing it: the disk is full"
	unsafe[2].Backup.Makes = false
	stopped := ThreeNodes() // nobody is to make backups any more
	each(stopped, func(s *status.Status) { s.Backup = backup(300 * time.Hour); s.Backup.Makes = false })
	zones := ThreeNodes()
	each(zones, func(s *status.Status) {
		s.Members[0].Zone, s.Members[1].Zone, s.Members[2].Zone = "hall 1", "hall 2", "hall 1"
		s.Members[2].Voter, s.Members[2].Demoted = false, true
		s.Members[2].Why = "an operator has demoted it (flotilla members promote undoes that)"
		s.Members[1].Witness = true
		s.Roles = nil
	})
	of := func(supports ...uint64) func(*status.Status) {
		return func(s *status.Status) {
			s.Version = 1
			for i := range s.Members {
				s.Members[i].Supports = supports[i]
			}
			s.Roles, s.Certificates, s.Tickets = nil, nil, status.Tickets{}
		}
	}
	upgrading := each(ThreeNodes(), of(2, 2, 1))
	*upgrading[0] = status.Status{ // an older program, which leads
		ID: IDOne, Name: "n1", Addr: "10.0.0.1:7373", Cluster: "3f9a0c12aabbccddeeff001122334455", Leader: IDOne, Term: 4, Index: 812, Ready: true,
		Members: upgrading[1].Members,
	}
	each(upgrading, func(s *status.Status) { s.Members = slices.Clone(s.Members); s.Members[0].Supports = 0 })
	each(upgrading[1:], func(s *status.Status) { s.Members[0].Supports = 1 })
	upgraded := each(ThreeNodes(), of(2, 2, 2))
	for i := range upgraded[0].Members {
		upgraded[0].Members[i].Since = Today().Add(-time.Duration(17+i) * time.Minute)
	}
	waiting := each(ThreeNodes(), of(2, 2, 0))
	waiting[2] = nil
	each(waiting, func(s *status.Status) { s.Members[2].Present = false })
	fresh := []*status.Status{{ID: IDOne, Name: "n1", Addr: "10.0.0.1:7373"}}
	return map[string]*view.Cluster{
		"well":     ClusterOf(t, ThreeNodes(), nil),
		"drained":  ClusterOf(t, drained, nil),
		"evicting": ClusterOf(t, evicting, nil),
		"absent":   ClusterOf(t, absent, map[string]string{"n3": "nobody listens at its address"}),
		"lost": ClusterOf(t, lost, map[string]string{
			"n1": "the cluster has no leader that it can reach; the peer at 10.0.0.2:7373 says last: connection refused",
			"n2": "nobody listens at its address", "n3": "no answer in time",
		}),
		"odd":       ClusterOf(t, strange, map[string]string{"n2": "no answer in time"}),
		"hostile":   ClusterOf(t, hostile, nil),
		"contested": ClusterOf(t, contested, nil),
		"crowded":   ClusterOf(t, crowded, nil),
		"backed":    ClusterOf(t, backedUp, nil),
		"unsafe":    ClusterOf(t, unsafe, nil),
		"stopped":   ClusterOf(t, stopped, nil),
		"zones":     ClusterOf(t, zones, nil),
		"upgrading": ClusterOf(t, upgrading, nil),
		"upgraded":  ClusterOf(t, upgraded, nil),
		"waiting":   ClusterOf(t, waiting, map[string]string{"n3": "nobody listens at its address"}),
		"new":       ClusterOf(t, fresh, map[string]string{"n1": "it has found no cluster yet"}),
	}
}
