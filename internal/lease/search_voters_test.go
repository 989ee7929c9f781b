package lease

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// votersModel is about changes of the voters while X has a lease. X counts majorities of the
// configuration that it has applied, the leader those of the newest one. It has five members: voter
// 0, which is X's node and stays, and four that come and go as voters, one at a time. Each has its
// own clock, and the leader has another one. Restarts and cleared suspicions are in leaseModel.
// Here X gets a grant when it is given, and any member may answer a renewal as long as it is of
// use. The number of changes has no bound: only those configurations matter that X has not left
// behind.
type votersModel struct {
	leaseRules
	least, most int // voters
	broken      brokenChanges
}

// brokenChanges are rules about changes of the voters that do not hold.
type brokenChanges struct {
	unapplied bool // a change does not wait until X has applied the last one
	hasty     bool // a change does not wait until the grants before it have expired
	together  bool // two changes that were each allowed by the same check may both be made
	late      bool // a majority of earlier voters, found before a change, may end the session after it
}

// votersWorld is a state of the model. Of the configurations it has the one that X has applied, and
// those after it.
type votersWorld struct {
	members [5]votersMember
	ago     [4]int16 // see leaseWorld
	// end is how long the lease lasts still, by X's clock: the longest that X has ever found, whatever
	// voters it counted then.
	end      int16
	wait     int16  // how long the leader waits still before another change, by its clock
	confs    uint8  // how many configurations there are
	also     uint8  // 1: another change was allowed together with the last one
	detected uint16 // how far leaders are with X
}

type votersMember struct {
	bound   int16  // see leaseVoter
	granted uint8  // see leaseVoter
	votes   uint8  // set of configurations
	done    uint16 // with the suspicion
}

// Of votersWorld.detected.
const (
	isSuspected = 1 + iota
	isReported  // by a majority; only if that may count later
	isEnded
)

// Of votersMember.done.
const (
	hasApplied  = 1 + iota // the suspicion: it grants no more
	hasReported            // that nothing binds it
)

// first is three voters, without a lease.
func (m *votersModel) first() votersWorld {
	w := votersWorld{confs: 1}
	for i := range 3 {
		w.members[i].votes = 1
	}
	return w
}

// voters returns those of a configuration.
func (m *votersModel) voters(w *votersWorld, conf uint8) []string {
	var voters []string
	for i, v := range w.members {
		if v.votes&(1<<conf) != 0 {
			voters = append(voters, m.names[i])
		}
	}
	return voters
}

// count makes X look how long its lease lasts, by the voters that it knows. It never takes back
// what it has found.
func (m *votersModel) count(w *votersWorld) {
	h := m.holder()
	for i, v := range w.members {
		if v.granted != 0 {
			m.granted(h, i, w.ago[v.granted-1])
		}
	}
	if end := h.end(m.voters(w, 0)); !end.IsZero() {
		w.end = max(w.end, int16(end.Sub(m.now)))
	}
}

func (m *votersModel) next(w votersWorld, to func(move, votersWorld)) {
	m.timePasses(w, 0, nil, to)
	for i := range w.members {
		m.memberActs(w, i, to)
	}
	m.configures(w, to)
	m.detects(w, to)
}

// timePasses lets each clock go at its own rate, X's first and the leader's last.
func (m *votersModel) timePasses(w votersWorld, i int, rates []int16, to func(move, votersWorld)) {
	switch {
	case i > len(w.members):
		n := w
		n.ago = m.laterBy(rates[0], w.ago)
		n.end = max(0, w.end-rates[0])
		for i := range n.members {
			v := &n.members[i]
			v.bound = max(0, v.bound-rates[i])
			if v.granted != 0 {
				v.granted++
			}
		}
		n.wait = max(0, w.wait-rates[len(w.members)])
		to(move{what: "time passes; X's clock advances by %d", args: [3]int16{rates[0]}}, n)
	case i > 0 && i < len(w.members) && w.members[i].bound == 0, i == len(w.members) && w.wait == 0:
		m.timePasses(w, i+1, append(rates, m.rates[0]), to) // it waits for nothing
	default:
		for _, rate := range m.rates {
			m.timePasses(w, i+1, append(rates, rate), to)
		}
	}
}

// memberActs lets a member answer a renewal, apply the suspicion, or report, and X's node apply a
// configuration.
func (m *votersModel) memberActs(w votersWorld, i int, to func(move, votersWorld)) {
	v := &w.members[i]
	for moment, ago := range w.ago {
		if v.done >= hasApplied || moment > 0 && (ago == 0 || i == 0) {
			break
		}
		n := w
		v := &n.members[i]
		v.bound = m.given(v.bound)
		if v.granted == 0 || v.granted > uint8(moment)+1 {
			v.granted = uint8(moment) + 1
		}
		m.count(&n)
		to(move{what: "member %d grants a lease, and X gets the grant; the renewal was sent %d before", args: [3]int16{int16(i), ago}}, n)
	}
	n := w
	switch {
	case w.detected >= isSuspected && v.done == 0:
		n.members[i].done = hasApplied
		to(move{what: "member %d applies the suspicion", args: [3]int16{int16(i)}}, n)
	case v.done == hasApplied && m.expired(v.bound):
		n.members[i].done = hasReported
		to(move{what: "member %d reports that nothing binds it", args: [3]int16{int16(i)}}, n)
	}
	if i == 0 && w.confs > 1 {
		n := w
		n.confs--
		for i := range n.members {
			n.members[i].votes >>= 1
		}
		if n.confs == 1 && !m.broken.unapplied {
			n.wait = int16(m.grant)
		}
		m.count(&n)
		to(move{what: "X applies the next configuration, of %d voters", args: [3]int16{int16(len(m.voters(&n, 0)))}}, n)
	}
}

// configures lets a leader make a voter of another member, or take the vote from one.
func (m *votersModel) configures(w votersWorld, to func(move, votersWorld)) {
	allowed := (w.confs == 1 || m.broken.unapplied) && (w.wait == 0 || m.broken.hasty)
	if w.detected == isEnded || w.confs == 3 || !allowed && w.also == 0 {
		return
	}
	for i := 1; i < len(w.members); i++ {
		n := w
		n.confs++
		n.also = 0
		if allowed && m.broken.together {
			n.also = 1
		}
		for i := range n.members {
			n.members[i].votes |= n.members[i].votes & (1 << (w.confs - 1)) << 1
		}
		n.members[i].votes ^= 1 << w.confs
		if m.broken.unapplied {
			n.wait = int16(m.grant)
		}
		what := "a configuration is committed in which member %d votes, one of %d"
		if n.members[i].votes&(1<<w.confs) == 0 {
			what = "a configuration is committed in which member %d does not vote, but %d others"
		}
		if voters := len(m.voters(&n, w.confs)); voters >= m.least && voters <= m.most {
			to(move{what: what, args: [3]int16{int16(i), int16(voters)}}, n)
		}
	}
}

// detects lets a leader suspect X, and end it when a majority has reported.
func (m *votersModel) detects(w votersWorld, to func(move, votersWorld)) {
	voters := m.voters(&w, w.confs-1)
	reports := 0
	for i, v := range w.members {
		if v.done == hasReported && slices.Contains(voters, m.names[i]) {
			reports++
		}
	}
	n := w
	switch {
	case w.detected == 0:
		n.detected = isSuspected
		to(move{what: "X is suspected"}, n)
	case w.detected == isReported, w.detected == isSuspected && reports > len(voters)/2 && !m.broken.late:
		n.detected = isEnded
		to(move{what: "X is ended"}, n)
	case w.detected == isSuspected && reports > len(voters)/2:
		n.detected = isReported
		to(move{what: "a leader finds that a majority has reported"}, n)
	}
}

func (m *votersModel) forget(w votersWorld) votersWorld {
	for i := range w.members {
		v := &w.members[i]
		if v.granted > 1 && (int(v.granted) > len(w.ago) || w.ago[v.granted-1] == 0) {
			v.granted = 0
		}
		if w.detected == isEnded {
			v.done = min(v.done, hasApplied)
		}
	}
	if w.detected == isEnded {
		w.wait, w.also = 0, 0
	}
	return w
}

func (m *votersModel) rename(w votersWorld) votersWorld {
	slices.SortFunc(w.members[1:], func(a, b votersMember) int { return int(a.number()) - int(b.number()) })
	return w
}

func (v votersMember) number() uint64 {
	return uint64(v.bound)<<24 | uint64(v.granted)<<16 | uint64(v.votes)<<8 | uint64(v.done)
}

func (m *votersModel) wrong(w votersWorld) bool { return w.detected == isEnded && w.end > 0 }

// TestLeaseAcrossVoterChanges searches changes of the voters, with the rules of
// replica.Leadership.AwaitStable and with one of them broken at a time. The numbers of states are
// there as in TestLeaseStateSpace.
func TestLeaseAcrossVoterChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	search := func(length, step int16, least, most int, broken brokenChanges) (int, []move) {
		m := &votersModel{leaseRules: newLeaseRules(length, step), least: least, most: most, broken: broken}
		return explore(m, m.first())
	}
	for _, test := range []struct {
		long         bool
		length, step int16
		least, most  int
		states       int
	}{
		{false, 100, 100, 3, 4, 50693},
		{true, 100, 100, 1, 5, 111378},
	} {
		t.Run(fmt.Sprintf("%d to %d voters, a lease of %d in steps of %d", test.least, test.most, test.length, test.step), func(t *testing.T) {
			if test.long != *long {
				t.Skipf("another one finds what it does: it runs with -long=%t", test.long)
			}
			start := time.Now()
			states, way := search(test.length, test.step, test.least, test.most, brokenChanges{})
			t.Logf("%d states in %v", states, time.Since(start).Round(time.Millisecond))
			if way != nil {
				logWay(t, way)
				t.Error("X counts on its lease, and has been ended")
			}
			if states < test.states {
				t.Errorf("only %d states, not %d: the search does not see all", states, test.states)
			}
		})
	}
	for _, test := range []struct {
		name   string
		broken brokenChanges
	}{
		{"a change does not wait until the session has applied the last one", brokenChanges{unapplied: true}},
		{"a change does not wait for older grants", brokenChanges{hasty: true}},
		{"two changes are allowed by one check", brokenChanges{together: true}},
		{"a majority of earlier voters counts", brokenChanges{late: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			states, way := search(100, 100, 3, 4, test.broken)
			t.Logf("%d states", states)
			if way == nil {
				t.Fatal("nothing is wrong: the search does not see that the rule is broken")
			}
			logWay(t, way)
		})
	}
}
