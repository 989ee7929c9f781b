package page

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/internal/view/viewtest"
	"github.com/flotilla-ha/flotilla/status"
)

// The time line says who held a role in each minute, as far as events and the status tell.
func TestTimeLine(t *testing.T) {
	now := viewtest.Today()
	ago := func(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }
	moved := func(minutes int, from, to string, outage int) event.Event {
		return event.Event{Kind: event.RoleMoved, Time: ago(minutes), Subject: "r", From: from, To: to, Outage: time.Duration(outage) * time.Minute}
	}
	heldDown := func(minutes int) event.Event {
		return event.Event{Kind: event.RoleHeldDown, Time: ago(minutes), Subject: "r"}
	}
	holder := func(name string, since int) view.Role {
		r := view.Role{Role: status.Role{Name: "r", Holder: "id of " + name}, HolderName: name}
		if since > 0 {
			r.Since = ago(since)
		}
		return r
	}
	after := func(r view.Role, outage int) view.Role {
		r.Outage = time.Duration(outage) * time.Minute
		return r
	}
	none := view.Role{Role: status.Role{Name: "r"}, HolderName: "none known"}
	for name, test := range map[string]struct {
		role   view.Role
		events []event.Event
		want   []string // kind, node, and minutes ago
	}{
		"held for long":        {holder("a", 300), nil, []string{"held a 60-0"}},
		"nothing known":        {none, nil, []string{"unknown  60-0"}},
		"no time known":        {holder("a", 0), nil, []string{"held a 60-0"}},
		"no event left":        {holder("a", 20), nil, []string{"unknown  60-20", "held a 20-0"}},
		"no event, an outage":  {after(holder("a", 20), 5), nil, []string{"unknown  60-25", "nobody  25-20", "held a 20-0"}},
		"handed over":          {holder("b", 20), []event.Event{moved(20, "a", "b", 0)}, []string{"held a 60-20", "held b 20-0"}},
		"failed over":          {after(holder("b", 20), 5), []event.Event{moved(20, "a", "b", 5)}, []string{"held a 60-25", "nobody  25-20", "held b 20-0"}},
		"there and back":       {holder("a", 10), []event.Event{moved(30, "a", "b", 0), moved(10, "b", "a", 0)}, []string{"held a 60-30", "held b 30-10", "held a 10-0"}},
		"given up":             {none, []event.Event{moved(20, "a", "", 0)}, []string{"held a 60-20", "nobody  20-0"}},
		"taken anew":           {holder("a", 20), []event.Event{moved(20, "", "a", 0)}, []string{"nobody  60-20", "held a 20-0"}},
		"held down":            {holder("a", 300), []event.Event{heldDown(20)}, []string{"held a 60-20", "held-down  20-0"}},
		"held down, then lost": {holder("b", 15), []event.Event{heldDown(20), moved(15, "a", "b", 0)}, []string{"held a 60-20", "held-down  20-15", "held b 15-0"}},
		"an event was missed":  {holder("c", 5), []event.Event{moved(20, "a", "b", 0)}, []string{"held a 60-20", "held b 20-5", "held c 5-0"}},
		"before the hour":      {holder("b", 70), []event.Event{moved(70, "a", "b", 0)}, []string{"held b 60-0"}},
		"in the future":        {holder("a", 300), []event.Event{moved(-5, "a", "b", 0)}, []string{"held a 60-0"}},
		"an outage over the edge": {
			after(holder("b", 50), 30), []event.Event{moved(50, "a", "b", 30)}, []string{"nobody  60-50", "held b 50-0"},
		},
		"of another role": {holder("a", 300), []event.Event{{Kind: event.RoleMoved, Time: ago(5), Subject: "other", To: "b"}}, []string{"held a 60-0"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			end := now.Add(-hour)
			for _, s := range timeLine(&test.role, changesOf(test.events, now)["r"], now) {
				got = append(got, fmt.Sprintf("%s %s %.0f-%.0f", s.kind, s.node, now.Sub(s.from).Minutes(), now.Sub(s.to).Minutes()))
				if !s.from.Equal(end) || !s.to.After(s.from) {
					t.Errorf("a gap before %v", s)
				}
				end = s.to
			}
			if !end.Equal(now) {
				t.Errorf("it ends at %v", end)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("the time line (-want +got):\n%s", diff)
			}
		})
	}
}

// Each part of the time line says in words what it shows.
func TestTimeLineInWords(t *testing.T) {
	now := viewtest.Today()
	c := viewtest.Clusters(t)["well"]
	c.Best.Roles[0].Since = now.Add(-10 * time.Minute)
	events := []event.Event{
		{Kind: event.RoleHeldDown, Time: now.Add(-25 * time.Minute), Subject: "mailer"},
		{Kind: event.RoleMoved, Time: now.Add(-20 * time.Minute), Subject: "mailer", From: "n1", To: "gone", Outage: 6 * time.Minute},
		{Kind: event.RoleMoved, Time: now.Add(-10 * time.Minute), Subject: "mailer", From: "gone", To: "n2"},
	}
	m := newRoles(c, events, now)
	want := "n1: since before 11:00:00 to 11:34:00 (34 min); nobody: from 11:34:00 to 11:35:00 (60 s); " +
		"nobody, until nothing of the last holder is seen: from 11:35:00 to 11:40:00 (5 min); " +
		"gone: from 11:40:00 to 11:50:00 (10 min); n2: from 11:50:00 (10 min)"
	if diff := cmp.Diff(want, m.Rows[0].InWords); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var legend []string
	for _, o := range m.Legend {
		legend = append(legend, fmt.Sprint(o.Name.Short, o.Colour))
	}
	if diff := cmp.Diff([]string{"n10", "gone3", "n21", "n32"}, legend); diff != "" || !m.Idle || m.Unknown {
		t.Errorf("idle %v, unknown %v, legend (-want +got):\n%s", m.Idle, m.Unknown, diff)
	}
}
