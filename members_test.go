package flotilla

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// place is a member in a test of who votes, and what becomes of it.
type place struct {
	member
	since time.Duration // that it has been as it is
}

func voterOf(id string) place   { return place{member{id: id, votes: true, current: true}, time.Hour} }
func goneOf(id string) place    { return place{member{id: id, votes: true, absent: true}, time.Hour} }
func spareOf(id string) place   { return place{member{id: id, current: true}, time.Hour} }
func leadingOf(id string) place { p := voterOf(id); p.leads = true; return p }

func (p place) lasting(d time.Duration) place { p.since = d; return p }
func (p place) lost() place                   { p.member.lost = true; return p }
func (p place) former() place                 { p.member.former = true; return p }
func (p place) ended() place                  { p.member.ended = true; return p }
func (p place) refuses() place                { p.refused = true; return p }

func TestRosterDecides(t *testing.T) {
	day := 24 * time.Hour
	for _, test := range []struct {
		name    string
		members []place
		want    change
	}{
		{"all is well", []place{leadingOf("a"), voterOf("b"), voterOf("c")}, change{}},
		{"a spare votes", []place{leadingOf("a"), voterOf("b"), voterOf("c"), spareOf("d")}, change{kind: promote, id: "d"}},
		{"not at once", []place{leadingOf("a"), voterOf("b"), voterOf("c"), spareOf("d").lasting(9 * time.Second)}, change{}},
		{"five voters are enough", []place{leadingOf("a"), voterOf("b"), voterOf("c"), voterOf("d"), voterOf("e"), spareOf("f")}, change{}},
		{"a dead voter goes first", []place{leadingOf("a"), voterOf("b"), goneOf("c"), spareOf("d")}, change{kind: demote, id: "c"}},
		{"a restart is no death", []place{leadingOf("a"), voterOf("b"), voterOf("c"), voterOf("d"), goneOf("e").lasting(9 * time.Second), spareOf("f")}, change{}},
		{"nobody can take its place", []place{leadingOf("a"), voterOf("b"), goneOf("c"), spareOf("d").lasting(0)}, change{}},
		{"not without a majority", []place{leadingOf("a"), goneOf("b"), goneOf("c"), goneOf("d"), spareOf("e")}, change{}},
		{"one of two", []place{leadingOf("a"), voterOf("b"), voterOf("c"), goneOf("d"), goneOf("e").lasting(time.Minute), spareOf("f")}, change{kind: demote, id: "d"}},
		{"without a directory", []place{leadingOf("a"), voterOf("b"), goneOf("c").lost()}, change{kind: remove, id: "c"}},
		{"perhaps only cut off", []place{leadingOf("a"), voterOf("b"), goneOf("c").lost().lasting(59 * time.Second)}, change{}},
		{"began anew, and perhaps only cut off", []place{leadingOf("a"), voterOf("b"), goneOf("c").former().lasting(59 * time.Second)}, change{}},
		{"began anew", []place{leadingOf("a"), voterOf("b"), goneOf("c").former().lasting(time.Minute)}, change{kind: remove, id: "c"}},
		{"began anew, and its process has ended", []place{leadingOf("a"), voterOf("b"), goneOf("c").former().ended().lasting(10 * time.Second)}, change{kind: remove, id: "c"}},
		{"began anew a moment ago", []place{leadingOf("a"), voterOf("b"), goneOf("c").former().ended().lasting(9 * time.Second)}, change{}},
		{"its process has ended, and it may come back", []place{leadingOf("a"), voterOf("b"), goneOf("c").ended()}, change{}},
		{"its port refuses", []place{leadingOf("a"), voterOf("b"), goneOf("c").lost().refuses().lasting(goneTime)}, change{kind: remove, id: "c"}},
		{"a restart without a directory", []place{leadingOf("a"), voterOf("b"), goneOf("c").lost().refuses().lasting(goneTime - 1)}, change{}},
		{"ended, with a directory", []place{leadingOf("a"), voterOf("b"), goneOf("c").refuses()}, change{}},
		{"it is said to be a new node, and is there", []place{leadingOf("a"), voterOf("b"), voterOf("c").former()}, change{}},
		{"four are no better than three", []place{leadingOf("a"), voterOf("b"), voterOf("c"), goneOf("d")}, change{kind: demote, id: "d"}},
		{"two of five may come back", []place{leadingOf("a"), voterOf("b"), voterOf("c"), goneOf("d"), goneOf("e")}, change{}},
		{"a day", []place{leadingOf("a"), voterOf("b"), voterOf("c"), voterOf("d"), goneOf("e").lasting(day)}, change{kind: remove, id: "e"}},
		{"not a day yet", []place{leadingOf("a"), voterOf("b"), voterOf("c"), voterOf("d"), goneOf("e").lasting(day - time.Second)}, change{}},
		{"three stay three", []place{leadingOf("a"), voterOf("b"), goneOf("c").lasting(day)}, change{}},
		{"a non-voter after a day", []place{leadingOf("a"), voterOf("b"), voterOf("c"), {member{id: "d", absent: true}, day}}, change{kind: remove, id: "d"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, now := newRoster(day), time.Now()
			var all []member
			for _, p := range test.members {
				all = append(all, p.member)
				switch {
				case p.absent:
					r.absent[p.id] = now.Add(-p.since)
				case !p.votes:
					r.steady[p.id] = now.Add(-p.since)
				}
			}
			got, _ := r.next(now, all)
			if got.kind != test.want.kind || got.id != test.want.id {
				t.Errorf("the change is %+v, want %+v", got, test.want)
			}
		})
	}
}

// Whatever happens to machines, no change needs a member that is gone, none is taken from a member that is there, and a cluster whose dead
// voters can be replaced has none a while later.
func TestRosterInChurn(t *testing.T) {
	for seed := range uint64(3000) {
		churn(t, rand.New(rand.NewPCG(seed, 3)), seed)
	}
}

func churn(t *testing.T, random *rand.Rand, seed uint64) {
	now := time.Unix(0, 0)
	r := newRoster(time.Duration(random.IntN(3)) * time.Hour)
	all := []member{{id: "0", votes: true, current: true, leads: true}, {id: "1", votes: true, current: true}, {id: "2", votes: true, current: true}}
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
				m.absent, m.current, m.refused = true, false, random.IntN(2) == 0
				if !canDoWithout(all, "") { // then nothing can be done
					*m = was
				}
			case 1:
				m.absent, m.current, m.refused = false, true, false
			case 2:
				all = append(all, member{id: fmt.Sprint(step + 3), current: true, lost: random.IntN(2) == 0})
			}
		}
		c, ok := r.next(now, all)
		spare, dead := 0, 0
		for i := 0; i < len(all); i++ {
			m := &all[i]
			if m.id == c.id && ok {
				if c.kind != promote && (!m.absent || m.leads || !canDoWithout(all, m.id)) || c.kind == promote && (m.absent || m.votes) {
					t.Fatalf("seed %d, step %d: %+v of %+v among %+v", seed, step, c, *m, all)
				}
				switch m.votes = c.kind == promote; c.kind {
				case remove:
					all = append(all[:i:i], all[i+1:]...)
					i--
					continue
				}
			}
			switch {
			case m.votes && m.absent:
				dead++
			case !m.votes && m.current:
				spare++
			}
		}
		if calm > 40*time.Second && spare > 0 && dead > 0 {
			t.Fatalf("seed %d, step %d: a dead voter was not replaced in %v: %+v", seed, step, calm, all)
		}
	}
}

func TestRosterRemovesNobody(t *testing.T) {
	r, now := newRoster(-1), time.Now()
	all := []member{{id: "a", votes: true, leads: true}, {id: "b", votes: true}, {id: "c", votes: true}, {id: "d", absent: true}}
	r.look(now, all)
	if c, ok := r.next(now.Add(1000*time.Hour), all); ok {
		t.Errorf("the change is %+v, and dead members were to stay", c)
	}
}
