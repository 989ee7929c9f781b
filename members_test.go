package flotilla

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/membership"
)

// place is a member in a test of who votes, and what becomes of it.
type place struct {
	membership.Member
	since time.Duration // that it has been as it is
}

func voterOf(id string) place {
	return place{membership.Member{ID: id, Votes: true, Current: true}, time.Hour}
}
func goneOf(id string) place {
	return place{membership.Member{ID: id, Votes: true, Absent: true}, time.Hour}
}
func spareOf(id string) place   { return place{membership.Member{ID: id, Current: true}, time.Hour} }
func leadingOf(id string) place { p := voterOf(id); p.Leads = true; return p }

func (p place) lasting(d time.Duration) place { p.since = d; return p }
func (p place) lost() place                   { p.Member.Lost = true; return p }
func (p place) former() place                 { p.Member.Former = true; return p }
func (p place) ended() place                  { p.Member.Ended = true; return p }
func (p place) refuses() place                { p.Refused = true; return p }

func TestRosterDecides(t *testing.T) {
	day := 24 * time.Hour
	for _, test := range []struct {
		name    string
		members []place
		want    membership.Change
	}{
		{"all is well", []place{leadingOf("a"), voterOf("b"), voterOf("c")}, membership.Change{}},
		{"a spare votes", []place{leadingOf("a"), voterOf("b"), voterOf("c"), spareOf("d")}, membership.Change{Kind: membership.Promote, ID: "d"}},
		{"not at once", []place{leadingOf("a"), voterOf("b"), voterOf("c"), spareOf("d").lasting(9 * time.Second)}, membership.Change{}},
		{"five voters are enough", []place{leadingOf("a"), voterOf("b"), voterOf("c"), voterOf("d"), voterOf("e"), spareOf("f")}, membership.Change{}},
		{"a dead voter goes first", []place{leadingOf("a"), voterOf("b"), goneOf("c"), spareOf("d")}, membership.Change{Kind: membership.Demote, ID: "c"}},
		{"a restart is no death", []place{leadingOf("a"), voterOf("b"), voterOf("c"), voterOf("d"), goneOf("e").lasting(9 * time.Second), spareOf("f")}, membership.Change{}},
		{"nobody can take its place", []place{leadingOf("a"), voterOf("b"), goneOf("c"), spareOf("d").lasting(0)}, membership.Change{}},
		{"not without a majority", []place{leadingOf("a"), goneOf("b"), goneOf("c"), goneOf("d"), spareOf("e")}, membership.Change{}},
		{"one of two", []place{leadingOf("a"), voterOf("b"), voterOf("c"), goneOf("d"), goneOf("e").lasting(time.Minute), spareOf("f")}, membership.Change{Kind: membership.Demote, ID: "d"}},
		{"without a directory", []place{leadingOf("a"), voterOf("b"), goneOf("c").lost()}, membership.Change{Kind: membership.Remove, ID: "c"}},
		{"perhaps only cut off", []place{leadingOf("a"), voterOf("b"), goneOf("c").lost().lasting(59 * time.Second)}, membership.Change{}},
		{"began anew, and perhaps only cut off", []place{leadingOf("a"), voterOf("b"), goneOf("c").former().lasting(59 * time.Second)}, membership.Change{}},
		{"began anew", []place{leadingOf("a"), voterOf("b"), goneOf("c").former().lasting(time.Minute)}, membership.Change{Kind: membership.Remove, ID: "c"}},
		{"began anew, and its process has ended", []place{leadingOf("a"), voterOf("b"), goneOf("c").former().ended().lasting(10 * time.Second)}, membership.Change{Kind: membership.Remove, ID: "c"}},
		{"began anew a moment ago", []place{leadingOf("a"), voterOf("b"), goneOf("c").former().ended().lasting(9 * time.Second)}, membership.Change{}},
		{"its process has ended, and it may come back", []place{leadingOf("a"), voterOf("b"), goneOf("c").ended()}, membership.Change{}},
		{"its port refuses", []place{leadingOf("a"), voterOf("b"), goneOf("c").lost().refuses().lasting(membership.GoneTime)}, membership.Change{Kind: membership.Remove, ID: "c"}},
		{"a restart without a directory", []place{leadingOf("a"), voterOf("b"), goneOf("c").lost().refuses().lasting(membership.GoneTime - 1)}, membership.Change{}},
		{"ended, with a directory", []place{leadingOf("a"), voterOf("b"), goneOf("c").refuses()}, membership.Change{}},
		{"it is said to be a new node, and is there", []place{leadingOf("a"), voterOf("b"), voterOf("c").former()}, membership.Change{}},
		{"four are no better than three", []place{leadingOf("a"), voterOf("b"), voterOf("c"), goneOf("d")}, membership.Change{Kind: membership.Demote, ID: "d"}},
		{"two of five may come back", []place{leadingOf("a"), voterOf("b"), voterOf("c"), goneOf("d"), goneOf("e")}, membership.Change{}},
		{"a day", []place{leadingOf("a"), voterOf("b"), voterOf("c"), voterOf("d"), goneOf("e").lasting(day)}, membership.Change{Kind: membership.Remove, ID: "e"}},
		{"not a day yet", []place{leadingOf("a"), voterOf("b"), voterOf("c"), voterOf("d"), goneOf("e").lasting(day - time.Second)}, membership.Change{}},
		{"three stay three", []place{leadingOf("a"), voterOf("b"), goneOf("c").lasting(day)}, membership.Change{}},
		{"a non-voter after a day", []place{leadingOf("a"), voterOf("b"), voterOf("c"), {membership.Member{ID: "d", Absent: true}, day}}, membership.Change{Kind: membership.Remove, ID: "d"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, now := membership.NewRoster(day), time.Now()
			var all []membership.Member
			for _, p := range test.members {
				all = append(all, p.Member)
				switch {
				case p.Absent:
					r.Absent[p.ID] = now.Add(-p.since)
				case !p.Votes:
					r.Steady[p.ID] = now.Add(-p.since)
				}
			}
			got, _ := r.Next(now, all)
			if got.Kind != test.want.Kind || got.ID != test.want.ID {
				t.Errorf("the change is %+v, want %+v", got, test.want)
			}
		})
	}
}

// Whatever happens to machines, no change needs a member that is gone, none is taken from a member
// that is there, and a cluster whose dead voters can be replaced has none a while later.
func TestRosterInChurn(t *testing.T) {
	for seed := range uint64(3000) {
		churn(t, rand.New(rand.NewPCG(seed, 3)), seed)
	}
}

func churn(t *testing.T, random *rand.Rand, seed uint64) {
	now := time.Unix(0, 0)
	r := membership.NewRoster(time.Duration(random.IntN(3)) * time.Hour)
	all := []membership.Member{{ID: "0", Votes: true, Current: true, Leads: true}, {ID: "1", Votes: true, Current: true}, {ID: "2", Votes: true, Current: true}}
	var calm time.Duration // since the last event
	for step := range 600 {
		now = now.Add(time.Second)
		calm += time.Second
		if random.IntN(40) == 0 {
			calm = 0
			i := 1 + random.IntN(len(all)-1)
			switch m := &all[i]; random.IntN(3) {
			case 0:
				was := *m
				m.Absent, m.Current, m.Refused = true, false, random.IntN(2) == 0
				if !membership.CanDoWithout(all, "") { // then nothing can be done
					*m = was
				}
			case 1:
				m.Absent, m.Current, m.Refused = false, true, false
			case 2:
				all = append(all, membership.Member{ID: fmt.Sprint(step + 3), Current: true, Lost: random.IntN(2) == 0})
			}
		}
		c, ok := r.Next(now, all)
		spare, dead := 0, 0
		for i := 0; i < len(all); i++ {
			m := &all[i]
			if m.ID == c.ID && ok {
				if c.Kind != membership.Promote && (!m.Absent || m.Leads || !membership.CanDoWithout(all, m.ID)) || c.Kind == membership.Promote && (m.Absent || m.Votes) {
					t.Fatalf("seed %d, step %d: %+v of %+v among %+v", seed, step, c, *m, all)
				}
				switch m.Votes = c.Kind == membership.Promote; c.Kind {
				case membership.Remove:
					all = append(all[:i:i], all[i+1:]...)
					i--
					continue
				}
			}
			switch {
			case m.Votes && m.Absent:
				dead++
			case !m.Votes && m.Current:
				spare++
			}
		}
		if calm > 40*time.Second && spare > 0 && dead > 0 {
			t.Fatalf("seed %d, step %d: a dead voter was not replaced in %v: %+v", seed, step, calm, all)
		}
	}
}

func TestRosterRemovesNobody(t *testing.T) {
	r, now := membership.NewRoster(-1), time.Now()
	all := []membership.Member{{ID: "a", Votes: true, Leads: true}, {ID: "b", Votes: true}, {ID: "c", Votes: true}, {ID: "d", Absent: true}}
	r.Look(now, all)
	if c, ok := r.Next(now.Add(1000*time.Hour), all); ok {
		t.Errorf("the change is %+v, and dead members were to stay", c)
	}
}
