package membership

import (
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/script"
)

var rewrite = flag.Bool("rewrite", false, "write the results into testdata")

// TestRosterDecides runs the scripts in testdata. Their words are the methods of cluster.
func TestRosterDecides(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			c := new(cluster)
			script.Run(t, path, *rewrite, c.do)
		})
	}
}

// cluster is what a leader sees, in a script. All changes that its roster decides on are made.
type cluster struct {
	roster  *roster
	members []Member
	now     time.Time
	began   time.Time
}

func (c *cluster) do(cmd *script.Command) string {
	switch cmd.Name {
	case "cluster":
		*c = cluster{roster: newRoster(c.duration(cmd, cmd.Option("remove-dead", "24h"))), now: time.Unix(0, 0)}
		c.began = c.now
		for _, id := range cmd.Args() {
			id, zone, _ := strings.Cut(id, "/")
			c.members = append(c.members, Member{ID: id, Zone: zone, Votes: true, Current: true, Leads: len(c.members) == 0})
		}
		return c.look()
	case "join":
		id, zone, _ := strings.Cut(cmd.Arg(), "/")
		c.members = append(c.members, Member{
			ID: id, Zone: zone, Current: true, Lost: cmd.Option("directory", "yes") == "no", Witness: cmd.Option("witness", "no") == "yes",
		})
		return c.look()
	case "wait":
		return c.wait(c.duration(cmd, cmd.Arg()))
	case "show":
		return c.show()
	}
	id := cmd.Arg()
	i := slices.IndexFunc(c.members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		cmd.Fatalf("%s is no member", id)
	}
	switch m := &c.members[i]; cmd.Name {
	case "gone":
		m.Absent, m.Current = true, false
		m.Refused = cmd.Option("refuses", "no") == "yes"
		m.Ended = cmd.Option("ended", "no") == "yes"
	case "back":
		m.Absent, m.Current, m.Refused, m.Ended = false, true, false, false
	case "in-memory":
		m.Lost = true
	case "former":
		m.Former = true
	case "demote":
		m.Demoted = true
	case "promote":
		m.Demoted = false
	case "witness":
		m.Witness = true
	case "behind":
		m.Current = false
	default:
		cmd.Fatalf("unknown")
	}
	return c.look()
}

func (c *cluster) duration(cmd *script.Command, text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		cmd.Fatalf("%v", err)
	}
	return d
}

// wait lets time pass. The leader looks every second.
func (c *cluster) wait(d time.Duration) string {
	var out strings.Builder
	for end := c.now.Add(d); c.now.Before(end); {
		c.now = c.now.Add(time.Second)
		out.WriteString(c.look())
	}
	if out.Len() == 0 {
		return "nothing"
	}
	return out.String()
}

// look has the roster decide, makes the change that is due, and looks again.
func (c *cluster) look() string {
	due, ok := c.roster.next(c.now, c.members)
	if !ok {
		return ""
	}
	i := slices.IndexFunc(c.members, func(m Member) bool { return m.ID == due.ID })
	what := "votes"
	switch due.Kind {
	case Promote:
		c.members[i].Votes = true
	case Demote, Dismiss, Spread:
		what, c.members[i].Votes = "votes no more", false
	case Remove:
		what, c.members = "is removed", slices.Delete(c.members, i, i+1)
	}
	return fmt.Sprintf("after %v %s %s: %s\n", c.now.Sub(c.began), due.ID, what, due.Why) + c.look()
}

func (c *cluster) show() string {
	var voters, others []string
	for _, m := range c.members {
		if m.Votes {
			voters = append(voters, m.ID)
		} else {
			others = append(others, m.ID)
		}
	}
	return fmt.Sprintf("voters %v, others %v", voters, others)
}
