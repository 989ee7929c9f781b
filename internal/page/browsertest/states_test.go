package browsertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/internal/view/viewtest"
	"github.com/flotilla-ha/flotilla/status"
)

const day = 24 * time.Hour

// waits is how long a test waits for what comes soon: the machine may have much else to do.
const waits = 20 * time.Second

// state is what the page shows: a cluster and its events.
type state struct {
	cluster *view.Cluster
	events  []event.Event
}

// states are those that the page is looked at in, by a name for each.
func states(t *testing.T) map[string]state {
	return map[string]state{
		"healthy":            healthy(t),
		"lost node":          lostNode(t),
		"lost majority":      lostMajority(t),
		"expired":            expired(t),
		"hostile":            hostile(t),
		"no cluster":         {cluster: viewtest.Clusters(t)["new"]},
		"many":               many(t, 1000),
		"crowded as in view": {cluster: viewtest.Clusters(t)["crowded"]},
	}
}

// nodes is what three nodes say that have everything which the page can show.
func nodes() []*status.Status {
	today := viewtest.Today()
	all := viewtest.ThreeNodes()
	cert := func(name string, age time.Duration) status.Certificate {
		from := today.Add(-age)
		return status.Certificate{
			Name: name, Issuer: "R11", Serial: name, NotBefore: from, NotAfter: from.Add(90 * day),
			DaysLeft: int((90*day - age) / day), Renewal: from.Add(60*day + 5*time.Hour),
		}
	}
	for i, s := range all {
		s.Index = 48_211
		s.Lease.LeftMillis = []int64{870, 812, 790}[i]
		for j := range s.Members {
			s.Members[j].Zone, s.Members[j].Supports = fmt.Sprint("hall ", j+1), 2
		}
		s.Version = 2
		s.Roles = []status.Role{
			{Name: "mailer", Holder: viewtest.IDTwo, Fence: 801, Waiting: 2, Since: today.Add(-90 * time.Minute)},
			{Name: "vip/198.18.0.100", Group: "vip", Holder: viewtest.IDThree, Waiting: 2, Since: today.Add(-72 * time.Hour)},
			{Name: "vip/198.18.0.101", Group: "vip", Holder: viewtest.IDOne, Waiting: 2, Since: today.Add(-22 * time.Minute), Pinned: true},
		}
		s.Certificates = []status.Certificate{
			cert("api.example.com", 29*day), cert("shop.example.com", 57*day), cert("www.example.com", 12*day),
		}
		s.Space = []status.Space{
			{What: "records of programs", Bytes: 19 << 20, Limit: 64 << 20, Field: "MaxRecords"},
			{What: "certificates", Bytes: 310 << 10, Limit: 16 << 20},
			{What: "roles and locks of programs", Bytes: 2100, Limit: 4 << 20},
		}
		s.Backup = &status.Backup{
			Time: today.Add(-5 * time.Hour), Name: "flotilla-3f9a0c12-20261125-070000.backup", Node: "n2", Size: 21 << 20, Every: day, Makes: true,
		}
	}
	return all
}

func healthy(t *testing.T) state {
	return state{viewtest.ClusterOf(t, nodes(), nil), calmEvents()}
}

func ago(d time.Duration, e event.Event) event.Event {
	e.Time, e.Number = viewtest.Today().Add(-d), uint64(day-d)
	if e.Node == "" {
		e.Node = "n1"
	}
	if e.Severity == "" {
		e.Severity = event.Info
	}
	return e
}

func calmEvents() []event.Event {
	var all []event.Event
	for i := range 30 {
		d := 20*time.Hour - time.Duration(i)*30*time.Minute
		all = append(all, ago(d, event.Event{Kind: event.CertificateServed, Subject: "www.example.com", Text: "the node serves a newer certificate"}))
	}
	return append(all,
		ago(5*time.Hour, event.Event{Kind: event.BackupMade, Node: "n2", Subject: "flotilla-3f9a0c12-20261125-070000.backup", Text: "a backup was made and verified"}),
		ago(3*time.Hour, event.Event{Kind: event.TicketsDropped, Text: "the nodes use a new key for session tickets"}),
		ago(22*time.Minute, event.Event{
			Kind: event.RoleMoved, Subject: "vip/198.18.0.101", From: "n2", To: "n1", Text: "the role moved from n2 to n1", Cause: "an operator moved it",
		}),
		ago(9*time.Minute, event.Event{Kind: event.CertificateRenewed, Node: "n3", Subject: "www.example.com", Text: "the certificate was renewed"}),
	)
}

func lostNode(t *testing.T) state {
	all := nodes()
	all[2] = nil
	for _, s := range all[:2] {
		s.Members[2].Present = false
		s.Members[2].Supports = 0
		s.Members[2].Why = "it has been gone for 4 min; start it again, or remove it (flotilla members remove n3)"
		s.Roles[0].Since, s.Roles[0].Outage = viewtest.Today().Add(-31*time.Minute), 3*time.Minute
		s.Roles[1].Holder, s.Roles[1].Since, s.Roles[1].Outage = viewtest.IDTwo, viewtest.Today().Add(-4*time.Minute), 1300*time.Millisecond
		s.Roles[1].Waiting, s.Roles[0].Waiting, s.Roles[2].Waiting = 1, 1, 1
	}
	events := append(calmEvents(),
		ago(34*time.Minute, event.Event{Kind: event.RoleHeldDown, Subject: "mailer", Text: "the role waits until nothing of its holder is seen"}),
		ago(31*time.Minute, event.Event{Kind: event.RoleMoved, Subject: "mailer", From: "n3", To: "n2", Outage: 3 * time.Minute, Text: "the role moved from n3 to n2 after an outage of 3 min"}),
		ago(245*time.Second, event.Event{Kind: event.SessionSuspected, Subject: "n3", Severity: event.Warn, Text: "the leader has not heard from it"}),
		ago(243*time.Second, event.Event{Kind: event.SessionEnded, Subject: "n3", Severity: event.Warn, Text: "its session has ended; it holds nothing any more", Cause: "its lease was not renewed in time"}),
		ago(4*time.Minute, event.Event{Kind: event.RoleMoved, Subject: "vip/198.18.0.100", From: "n3", To: "n2", Outage: 1300 * time.Millisecond, Text: "the role moved from n3 to n2 after an outage of 1.3 s"}),
		ago(30*time.Second, event.Event{Kind: event.DiskHangs, Node: "n2", Severity: event.Error, Text: "a write takes too long", Cause: "fsync of raft.db takes 2.1 s"}),
	)
	return state{viewtest.ClusterOf(t, all, map[string]string{"n3": "nobody listens at its address"}), event.Merge(events)}
}

func lostMajority(t *testing.T) state {
	all := nodes()
	all[1], all[2] = nil, nil
	s := all[0]
	s.Leader, s.LeaderName, s.Ready, s.Lease = "", "", false, status.Lease{}
	for i := range s.Roles {
		s.Roles[i].Holder = ""
	}
	s.Waiting = []status.Wait{{What: "the cluster has no leader", Why: "n2 (10.0.0.2:7373) and n3 (10.0.0.3:7373) do not answer", Since: viewtest.Today().Add(-2 * time.Minute)}}
	events := append(calmEvents(),
		ago(125*time.Second, event.Event{Kind: event.LeaseLost, Node: "n2", Severity: event.Warn, Text: "the node gave up what it held"}),
		ago(2*time.Minute, event.Event{Kind: event.LeaseLost, Severity: event.Error, Text: "the node gave up what it held", Cause: "no majority of the voters answers"}),
	)
	return state{viewtest.ClusterOf(t, all, map[string]string{
		"n1": "the cluster has no leader that it can reach; the peer at 10.0.0.2:7373 says last: connection refused",
		"n2": "nobody listens at its address", "n3": "no answer in time",
	}), event.Merge(events)}
}

func expired(t *testing.T) state {
	all, today := nodes(), viewtest.Today()
	for _, s := range all {
		c := &s.Certificates[1]
		c.NotBefore, c.NotAfter, c.Renewal, c.DaysLeft = today.Add(-92*day), today.Add(-2*day), today.Add(-32*day), -2
		c.Err = "acme: error presenting token: the name shop.example.com leads to 192.0.2.7, where somebody else answers; let the name lead to this cluster"
		c.Next, c.Failures = today.Add(47*time.Minute), 14
		s.Certificates = append(s.Certificates, status.Certificate{Name: "new.example.com", SelfSigned: true})
		s.Certificates[2].OCSPNextUpdate = today.Add(5 * day)
	}
	events := append(calmEvents(), ago(13*time.Minute, event.Event{
		Kind: event.OrderRefused, Node: "n2", Subject: "shop.example.com", Severity: event.Error, Text: "the authority has refused the order",
		Cause: "acme: error presenting token: the name shop.example.com leads to 192.0.2.7",
	}))
	return state{viewtest.ClusterOf(t, all, nil), event.Merge(events)}
}

// hostile is a cluster in which everything that somebody can choose is chosen badly.
func hostile(t *testing.T) state {
	bad := []string{
		strings.Repeat("w", 1000), `<script>alert(1)</script><img src=x onerror=alert(1)>`, "\u202eright to left", "a\x1b[2J\nb\x00",
		strings.Repeat("Z\u0351\u0352\u0353\u0354\u0355", 200), "שלום עולם عربى", `"' onmouseover="alert(1)" style="position:fixed`, strings.Repeat("long name ", 100),
	}
	all, n := nodes(), 0
	next := func() string { n++; return bad[n%len(bad)] }
	for i, s := range all {
		s.Name, s.Addr, s.Clock = next(), next(), next()
		for j := range s.Members {
			s.Members[j].Name, s.Members[j].Zone, s.Members[j].Why = next(), next(), next()
			s.Members[j].ClockAhead = time.Duration(j) * time.Hour
		}
		s.Waiting = []status.Wait{{What: next(), Why: next()}}
		s.Peers = []status.Peer{{Name: next(), Differs: []string{next()}}}
		for j := range s.Roles {
			s.Roles[j].Name, s.Roles[j].Group, s.Roles[j].Remark = fmt.Sprint(j, bad[j]), next(), next()
		}
		for j := range s.Certificates {
			c := &s.Certificates[j]
			c.Name, c.Issuer, c.Err = next(), next(), next()
		}
		s.Space[0].What, s.Space[0].Bytes = next(), 63<<20
		s.Tickets.Key, s.Backup.Name, s.Backup.Node, s.Backup.Err = next(), next(), next(), next()
		s.Err = []string{"", next(), ""}[i]
	}
	var events []event.Event
	for range 40 {
		events = append(events, ago(time.Minute, event.Event{Kind: event.RoleMoved, Node: next(), Subject: next(), From: next(), To: next(), Text: next(), Cause: next(), Severity: event.Severity(next())}))
	}
	return state{viewtest.ClusterOf(t, all, nil), events}
}

// many is a healthy cluster with so many certificates, and all events that a node keeps.
func many(t *testing.T, certificates int) state {
	all := nodes()
	for _, s := range all {
		one := s.Certificates[0]
		s.Certificates = nil
		for i := range certificates {
			one.Name, one.Serial = fmt.Sprintf("customer%04d.example.com", i), fmt.Sprint(i)
			s.Certificates = append(s.Certificates, one)
		}
	}
	var events []event.Event
	for i := range 256 {
		events = append(events, ago(time.Duration(256-i)*time.Minute, event.Event{Kind: event.CertificateServed, Subject: "www.example.com", Text: "the node serves a newer certificate"}))
	}
	return state{viewtest.ClusterOf(t, all, nil), events}
}
