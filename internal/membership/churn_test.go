package membership

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestRosterInChurn goes through schedules of deaths, returns, newcomers, elections and operators'
// wishes, in clusters with and without zones and witnesses. hashicorp/consul#5922 and #8118 are
// what must not happen: dead nodes that are needed, and voters that are removed until none can go
// on.
func TestRosterInChurn(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for seed := range uint64(10_000) {
		c := newChurn(rand.New(rand.NewPCG(seed, 3)))
		for step := range 100 {
			if why := c.step(step); why != "" {
				t.Fatalf("seed %d, step %d: %s: %+v", seed, step, why, c.all)
			}
		}
	}
}

// churn is a cluster to which one thing after another happens.
type churn struct {
	random  *rand.Rand
	roster  *roster
	dead    time.Duration // until a member is removed
	zones   int
	all     []Member
	now     time.Time
	calm    time.Duration // since anything happened
	rest    time.Duration // calm, at the look before this one
	steady  map[string]time.Duration
	plain   bool // there were neither zones nor witnesses nor demotions
	joiners int
}

func newChurn(random *rand.Rand) *churn {
	c := &churn{random: random, zones: random.IntN(6), now: time.Unix(0, 0), dead: time.Duration(random.IntN(3)) * time.Hour, steady: make(map[string]time.Duration)}
	c.plain, c.roster = c.zones == 0, newRoster(c.dead)
	for range 3 {
		c.join()
		c.all[len(c.all)-1].Votes = true
	}
	c.all[0].Leads = true
	if random.IntN(4) == 0 {
		c.all[2].Witness, c.plain = true, false
	}
	return c
}

func (c *churn) join() {
	m := Member{ID: fmt.Sprint(c.joiners), Current: true}
	c.joiners++
	if c.zones > 0 && c.random.IntN(8) > 0 {
		m.Zone = string(rune('a' + c.random.IntN(c.zones)))
	}
	c.all = append(c.all, m)
}

// happen has one thing happen, and reports whether it has. Never does a majority die: then nothing
// could be done.
func (c *churn) happen() bool {
	i := c.random.IntN(len(c.all))
	m, was := &c.all[i], c.all[i]
	switch c.random.IntN(6) {
	case 0, 1: // a death, or of two if they follow each other
		m.Absent, m.Current, m.Refused = true, false, c.random.IntN(2) == 0
		if !canDoWithout(c.all, "") || m.Leads && !c.elect() {
			*m = was
			return false
		}
	case 2:
		m.Absent, m.Current, m.Refused = false, true, false
	case 3:
		if len(c.all) > 9 {
			return false
		}
		c.join()
		last := &c.all[len(c.all)-1]
		last.Lost = c.random.IntN(2) == 0
		if c.random.IntN(8) == 0 {
			last.Witness, c.plain = true, false
		}
	case 4:
		return c.elect()
	case 5: // as internal/ops permits it
		left := c.count(func(o *Member) bool { return o.Votes && !o.Demoted && o.ID != m.ID })
		leads := c.count(func(o *Member) bool { return o.Votes && !o.Demoted && !o.Witness && !o.Absent && o.ID != m.ID })
		if !m.Demoted && (m.Leads || left < MinVoters || leads == 0 || !canDoWithout(c.all, m.ID)) {
			return false
		}
		m.Demoted, c.plain = !m.Demoted, false
	}
	return true
}

// elect has another voter lead, if there is one.
func (c *churn) elect() bool {
	var able []int
	for i := range c.all {
		if m := &c.all[i]; m.Votes && !m.Absent && !m.Witness && !m.Demoted && !m.Leads {
			able = append(able, i)
		}
	}
	if len(able) == 0 {
		return false
	}
	for i := range c.all {
		c.all[i].Leads = false
	}
	c.all[able[c.random.IntN(len(able))]].Leads = true
	c.roster = newRoster(c.dead)
	clear(c.steady)
	return true
}

func (c *churn) count(is func(*Member) bool) (n int) {
	for i := range c.all {
		if is(&c.all[i]) {
			n++
		}
	}
	return n
}

// voting returns the voters.
func (c *churn) voting() (all []Member) {
	for _, m := range c.all {
		if m.Votes {
			all = append(all, m)
		}
	}
	return all
}

// step has something happen or some time pass, and carries out what the roster decides. It returns
// what is wrong then.
func (c *churn) step(step int) (why string) {
	if c.random.IntN(8) == 0 && c.happen() {
		c.calm = 0
	}
	pause := time.Duration(1+c.random.IntN(3)) * time.Second
	if c.calm == 0 {
		pause = time.Second // the leader looks once a second
	} else if c.random.IntN(40) == 0 {
		pause = time.Hour
	}
	c.now, c.rest, c.calm = c.now.Add(pause), c.calm, c.calm+pause
	for i := range c.all {
		m := &c.all[i]
		c.steady[m.ID] += pause
		if !m.Current {
			c.steady[m.ID] = 0
		}
	}
	before, kinds := strengthOf(c.voting()), make(map[ChangeKind]int)
	for range 20 {
		due, ok := c.roster.next(c.now, c.all)
		if !ok {
			return c.judge(before, kinds)
		}
		kinds[due.Kind]++
		if why := c.change(due); why != "" {
			return fmt.Sprintf("%s by %+v", why, due)
		}
	}
	return "it never comes to an end"
}

// change carries out a change, and returns what is wrong with it.
func (c *churn) change(due Change) string {
	i := slices.IndexFunc(c.all, func(m Member) bool { return m.ID == due.ID })
	m := &c.all[i]
	if due.Kind != Promote && (m.Leads || !canDoWithout(c.all, m.ID)) {
		return "the leader or the majority is lost"
	}
	voters := c.count(func(o *Member) bool { return o.Votes })
	spares := c.count(func(o *Member) bool {
		return !o.Votes && o.Current && !o.Demoted && c.steady[o.ID] >= SteadyTime-time.Second
	})
	switch due.Kind {
	case Promote:
		if m.Absent || m.Votes || m.Demoted || voters >= MaxVoters {
			return "one votes that must not"
		}
	case Demote:
		if !m.Absent || voters <= MinVoters && spares == 0 {
			return "a vote is lost for nothing"
		}
	case Dismiss:
		if !m.Demoted {
			return "one is dismissed that was not demoted"
		}
	case Spread:
		dead := c.count(func(o *Member) bool { return o.Votes && o.Absent })
		if voters <= MinVoters || dead > 0 {
			return "a living voter is taken at the wrong time"
		}
	case Remove:
		if !m.Absent || !m.Lost && m.Votes && voters <= MinVoters {
			return "one is removed that may be needed"
		}
		c.all = slices.Delete(c.all, i, i+1)
		return ""
	}
	m.Votes = due.Kind == Promote
	return ""
}

// judge returns what is wrong when all is done that was due.
func (c *churn) judge(before strength, kinds map[ChangeKind]int) string {
	voting := c.voting()
	now := strengthOf(voting)
	there := c.count(func(m *Member) bool { return m.Votes && !m.Absent })
	spares := c.count(func(m *Member) bool { return !m.Votes && m.Current && !m.Demoted })
	settled := kinds[Dismiss]+kinds[Remove] == 0
	switch dead := now.voters - there; {
	case settled && now.enough < before.enough:
		return "fewer than three vote"
	case settled && kinds[Demote] == 0 && kinds[Spread] > 0 && !now.exceeds(before):
		return "a living voter has lost its vote for nothing"
	case c.calm > 15*time.Second && dead > 0 && spares > 0 && there-1 <= now.voters/2 && c.canReplace():
		return "a dead voter is needed although another one could vote"
	case c.calm > 15*time.Second && dead > 0 && spares > 0 && c.plain:
		return "a dead voter was not replaced"
	case c.rest > 30*time.Second && kinds[Promote]+kinds[Demote]+kinds[Spread] > 0 && kinds[Remove] == 0:
		return "it does not come to rest"
	}
	return ""
}

// canReplace reports whether the members that are there could go on when one more of them dies.
func (c *churn) canReplace() bool {
	var able []Member
	for _, m := range c.all {
		if !m.Absent && (m.Votes || !m.Demoted) {
			able = append(able, m)
		}
	}
	return strengthOf(choose(able)).failures > 0
}

// TestChoose compares the voters that are chosen with the best of all sets.
func TestChoose(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var candidates []Member
		leads := false
		for i := range 1 + random.IntN(8) {
			m := Member{ID: fmt.Sprint(i), Witness: random.IntN(6) == 0, Votes: random.IntN(2) == 0}
			if random.IntN(4) > 0 {
				m.Zone = string(rune('a' + random.IntN(4)))
			}
			m.Leads = !leads && m.Votes && !m.Witness
			leads = leads || m.Leads
			candidates = append(candidates, m)
		}
		chosen := choose(candidates)
		best := strengthOf(nil)
		for set := range 1 << len(candidates) {
			var voters []Member
			witnesses, first := 0, false
			for i, m := range candidates {
				if set>>i&1 == 1 {
					voters = append(voters, m)
					if m.Witness {
						witnesses++
						first = first || m.Votes
					}
				}
			}
			if s := strengthOf(voters); len(voters) <= MaxVoters && witnesses <= 1 && (witnesses == 0 || first || len(voters) >= MinVoters) && s.exceeds(best) {
				best = s
			}
		}
		switch got := strengthOf(chosen); {
		case best.exceeds(got):
			t.Fatalf("%+v are chosen of %+v: %+v, and %+v is possible", chosen, candidates, got, best)
		case len(chosen) > MaxVoters:
			t.Fatalf("%+v are chosen of %+v", chosen, candidates)
		case leads && !slices.ContainsFunc(chosen, func(m Member) bool { return m.Leads }):
			t.Fatalf("%+v are chosen of %+v, without the leader", chosen, candidates)
		}
	}
}

// A living voter can lose its vote while all voters are well, if it does not lead and three are
// left.
func TestSpreadLeavesThree(t *testing.T) {
	four := func(change func(m []Member)) []Member {
		m := []Member{{ID: "a", Votes: true, Current: true, Leads: true}, {ID: "b", Votes: true, Current: true}, {ID: "c", Votes: true, Current: true}, {ID: "d", Votes: true, Current: true}}
		change(m)
		return m
	}
	for name, test := range map[string]struct {
		members []Member
		who     int
		want    bool
	}{
		"all are well":            {four(func([]Member) {}), 1, true},
		"it leads":                {four(func([]Member) {}), 0, false},
		"three vote":              {four(func(m []Member) { m[3].Votes = false }), 1, false},
		"one is gone":             {four(func(m []Member) { m[3].Absent = true }), 1, false},
		"a port refuses":          {four(func(m []Member) { m[3].Refused = true }), 1, false},
		"one is behind":           {four(func(m []Member) { m[3].Current = false }), 1, false},
		"who is gone is no voter": {append(four(func([]Member) {}), Member{ID: "e", Absent: true}), 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := maySpread(test.members, test.members[test.who]); got != test.want {
				t.Errorf("it can: %v", got)
			}
		})
	}
}
