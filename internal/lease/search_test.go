package lease

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/timing"
)

// The tests in this file and in search_voters_test.go go through everything that can happen to the
// lease of one session, in a small model. They look for a moment at which the session has been
// ended though its node still counts on its lease. The rules of time are those of held and grants
// themselves. What is around them (the manager, the failure detector, the state machine) is
// modelled as follows.
//
// There is one session, X. Its node is voter 0, so both have one clock. Voters 1 and 2 have their
// own. Time passes in steps, of which one or two make a lease. In each step each clock advances by
// what the slowest or the fastest clock would show. Between two steps anything may happen, in any
// order and as often as it likes:
//
//   - X sends renewals at every moment. A renewal, or its answer, may arrive at any later moment,
//     more than once, or never.
//   - Leaders commit suspect, clear and end. Which node leads and why it does so does not matter,
//     only that an end needs reports. A report is under way for ever once it was made, and an end
//     is possible for ever once there were enough reports.
//   - A voter applies the next committed entry, or lags.
//   - Voter 1 or 2 restarts: it forgets its grants and goes back to the beginning of the log.
//     (Voter 0 does not restart: X would end with it.)
//
// Two states are different only if the difference can matter. Times are relative to the present of
// each clock, and are forgotten when they are too long ago to matter. Voters 1 and 2 may change
// places. So the space is finite without a bound on time, messages or restarts. The only bound is
// the length of the log.

// leaseModel is what the search goes through.
type leaseModel struct {
	leaseRules
	entries int // of the log at most
	broken  brokenRules
}

// brokenRules are rules that do not hold. The protocol breaks none.
type brokenRules struct {
	hasty         bool // a restarted voter does not wait for what it may have granted
	blind         bool // a voter that has just started grants leases before it has caught up
	anySuspicion  bool // an end counts whichever suspicion it is about
	grantSuspects bool // a suspect is granted a lease
	fromReceipt   bool // the lease is counted from the arrival of a grant
	noMargin      bool // a grant is no longer than the lease
	minority      bool // the report of one voter is enough
}

func newLeaseModel(length, step int16, entries int, broken brokenRules) *leaseModel {
	m := &leaseModel{leaseRules: newLeaseRules(length, step), entries: entries, broken: broken}
	if broken.noMargin {
		m.lease, m.grant = time.Duration(length), time.Duration(length)
	}
	return m
}

// leaseRules are the rules of time, which are not modelled. The present is always the same. What is
// past is known by how long ago it was.
type leaseRules struct {
	now   time.Time
	lease time.Duration // see timing.Held
	grant time.Duration // see timing.Grant
	rates []int16       // what a clock may advance by in a step: slow or fast
	x     SessionID
	names []string // of voters
}

// newLeaseRules returns the rules for leases and steps of such lengths, before the margins and by a
// right clock. Two steps must fit an int16.
func newLeaseRules(length, step int16) leaseRules {
	return leaseRules{
		now: time.Unix(0, 0), lease: timing.Of(time.Duration(length)).Held(), grant: timing.Of(time.Duration(length)).Grant(),
		rates: []int16{step - step/timing.Drift, step + step/timing.Drift}, x: SessionID{Node: "0", Number: 1}, names: []string{"0", "1", "2", "3", "4"},
	}
}

// grants returns the grants of a voter that is bound for that long. What an earlier process of it
// may have granted is in that.
func (r *leaseRules) grants(bound int16) *grants {
	g := newGrants(r.grant, r.now.Add(-r.grant))
	if bound > 0 {
		g.until[r.x] = r.now.Add(time.Duration(bound))
	}
	return g
}

// bound is the inverse of grants.
func (r *leaseRules) bound(g *grants) int16 { return int16(max(0, g.expiry(r.x).Sub(r.now))) }

// given returns how long a voter is bound after it has given another grant.
func (r *leaseRules) given(bound int16) int16 {
	g := r.grants(bound)
	g.grant(r.x, r.now)
	return r.bound(g)
}

func (r *leaseRules) expired(bound int16) bool { return r.grants(bound).expired(r.x, r.now) }

// holder returns a lease as X keeps it.
func (r *leaseRules) holder() *held {
	h := &held{length: r.lease}
	h.begin(r.x.Number)
	return h
}

// granted makes X count the grant of a voter for a renewal that was sent so long ago. It reports
// whether that is the newest one.
func (r *leaseRules) granted(h *held, voter int, ago int16) bool {
	sent := r.now.Add(-time.Duration(ago))
	h.observe(r.names[voter], r.x.Number, sent)
	return h.granted[r.names[voter]].Equal(sent)
}

// laterBy returns how long ago the last moments were, after a step of X's clock. Moments that are
// no longer ago than a lease are known.
func (r *leaseRules) laterBy(rate int16, ago [4]int16) (later [4]int16) {
	for i := range len(ago) - 1 {
		if t := ago[i] + rate; (i == 0 || ago[i] != 0) && time.Duration(t) < r.lease {
			later[i+1] = t
		}
	}
	return later
}

// leaseWorld is a state of the model.
type leaseWorld struct {
	voters [3]leaseVoter
	// ago is how long ago the last moments were by X's clock, the present one first. 0: longer than a
	// lease.
	ago [4]int16
	log [6]leaseEntry
}

type leaseVoter struct {
	bound    int16  // how long grants bind it, or may, by its clock
	reported uint16 // set of entries: suspicions under which it has reported
	applied  uint8  // entries of the log
	behind   uint8  // the entry that it must apply to have caught up since it started; 0: it has
	granted  uint8  // 1 + the moment of the newest renewal that X knows it granted; 0: none
	answers  uint8  // set of moments: when the renewals were sent whose answers are under way to X
}

type leaseEntry struct {
	what command
	of   uint8 // the suspicion that is cleared or has come true
}

type command uint8

const (
	suspect command = 1 + iota
	clearIt
	end
)

// after returns what the state machine knows of X after that many entries: the suspicion that it is
// under, 0 if none, and whether it has ended.
func (m *leaseModel) after(w *leaseWorld, entries uint8) (suspicion uint8, ended bool) {
	for i, e := range w.log[:entries] {
		switch {
		case e.what == suspect && suspicion == 0:
			suspicion = uint8(i) + 1
		case e.what == clearIt && suspicion == e.of:
			suspicion = 0
		case e.what == end && (suspicion == e.of || m.broken.anySuspicion):
			return 0, true
		}
	}
	return suspicion, false
}

func (w *leaseWorld) committed() uint8 {
	n := slices.IndexFunc(w.log[:], func(e leaseEntry) bool { return e.what == 0 })
	if n < 0 {
		n = len(w.log)
	}
	return uint8(n)
}

// holder returns the lease as X keeps it.
func (m *leaseModel) holder(w *leaseWorld) *held {
	h := m.leaseRules.holder()
	for i, v := range w.voters {
		if v.granted != 0 {
			m.leaseRules.granted(h, i, w.ago[v.granted-1])
		}
	}
	return h
}

// next calls to with every state that may come next, and with what has happened.
func (m *leaseModel) next(w leaseWorld, to func(move, leaseWorld)) {
	m.timePasses(w, to)
	for i := range w.voters {
		m.voterActs(w, i, to)
	}
	for i := range w.voters {
		m.leaseGrows(w, i, to)
	}
	m.leaderActs(w, to)
}

// timePasses lets each clock go at its own rate.
func (m *leaseModel) timePasses(w leaseWorld, to func(move, leaseWorld)) {
	for _, x := range m.rates {
		for _, one := range m.ratesOf(w.voters[1]) {
			for _, two := range m.ratesOf(w.voters[2]) {
				n := w
				n.ago = m.laterBy(x, w.ago)
				for i, rate := range []int16{x, one, two} {
					v := &n.voters[i]
					v.bound = max(0, v.bound-rate)
					v.answers <<= 1
					if v.granted != 0 {
						v.granted++
					}
				}
				to(move{what: "time passes; the clocks advance by %d, %d and %d", args: [3]int16{x, one, two}}, n)
			}
		}
	}
}

// ratesOf returns how fast a voter's clock may go; it does not matter if it waits for nothing.
func (m *leaseModel) ratesOf(v leaseVoter) []int16 {
	if v.bound == 0 {
		return m.rates[:1]
	}
	return m.rates
}

// voterActs lets a voter answer renewals, apply an entry, report, or restart.
func (m *leaseModel) voterActs(w leaseWorld, i int, to func(move, leaseWorld)) {
	v := w.voters[i]
	suspicion, ended := m.after(&w, v.applied)
	if !ended && (suspicion == 0 || m.broken.grantSuspects) && (v.behind == 0 || m.broken.blind) {
		for moment, ago := range w.ago {
			if moment > 0 && (ago == 0 || i == 0) { // its own node's renewals need no message
				break
			}
			n := w
			v := &n.voters[i]
			v.bound = m.given(v.bound)
			if i == 0 {
				m.granted(&n, i, uint8(moment))
			} else {
				v.answers |= 1 << moment
			}
			to(move{what: "voter %d grants a lease; the renewal was sent %d before", args: [3]int16{int16(i), ago}}, n)
		}
	}
	if v.applied < w.committed() {
		n := w
		n.voters[i].applied++
		if !m.broken.blind {
			n.voters[i].applied = max(n.voters[i].applied, v.behind) // it does nothing on the way
		}
		to(move{what: "voter %d applies the log up to entry %d", args: [3]int16{int16(i), int16(n.voters[i].applied)}}, n)
	}
	if suspicion != 0 && v.behind == 0 && m.expired(v.bound) {
		n := w
		n.voters[i].reported |= 1 << suspicion
		to(move{what: "voter %d reports that nothing binds it, under suspicion %d", args: [3]int16{int16(i), int16(suspicion)}}, n)
	}
	if i > 0 {
		n := w
		n.voters[i].applied, n.voters[i].behind = 0, w.committed()
		n.voters[i].bound = m.bound(newGrants(m.grant, m.now))
		if m.broken.hasty {
			n.voters[i].bound = 0
		}
		to(move{what: "voter %d restarts", args: [3]int16{int16(i)}}, n)
	}
}

// leaseGrows lets grants arrive.
func (m *leaseModel) leaseGrows(w leaseWorld, i int, to func(move, leaseWorld)) {
	for moment := range w.ago {
		if w.voters[i].answers&(1<<moment) != 0 {
			n := w
			m.granted(&n, i, uint8(moment))
			to(move{what: "X gets voter %d's grant for the renewal that was sent %d before", args: [3]int16{int16(i), w.ago[moment]}}, n)
		}
	}
}

// granted counts a grant.
func (m *leaseModel) granted(w *leaseWorld, i int, moment uint8) {
	if m.broken.fromReceipt {
		moment = 0
	}
	if m.leaseRules.granted(m.holder(w), i, w.ago[moment]) {
		w.voters[i].granted = moment + 1
	}
}

// leaderActs commits an entry. One that changes nothing makes no difference to anybody.
func (m *leaseModel) leaderActs(w leaseWorld, to func(move, leaseWorld)) {
	last := w.committed()
	suspicion, ended := m.after(&w, last)
	if ended || int(last) == m.entries {
		return
	}
	commit := func(what string, e leaseEntry) {
		n := w
		n.log[last] = e
		if s, ended := m.after(&n, last+1); s != suspicion || ended {
			to(move{what: what, args: [3]int16{int16(last) + 1, int16(e.of)}}, n)
		}
	}
	commit("entry %d is committed: suspect", leaseEntry{what: suspect})
	for of := uint8(1); of <= last; of++ {
		commit("entry %d is committed: clear %d", leaseEntry{clearIt, of})
		reports := 0
		for _, v := range w.voters {
			if v.reported&(1<<of) != 0 {
				reports++
			}
		}
		if reports > len(w.voters)/2 || m.broken.minority && reports > 0 {
			commit("entry %d is committed: end, for suspicion %d has come true", leaseEntry{end, of})
		}
	}
}

func (m *leaseModel) forget(w leaseWorld) leaseWorld {
	suspicion, ended := m.after(&w, w.committed())
	for i := range w.voters {
		v := &w.voters[i]
		if v.granted > 1 && (int(v.granted) > len(w.ago) || w.ago[v.granted-1] == 0) {
			v.granted = 0
		}
		for moment, ago := range w.ago {
			if moment > 0 && ago == 0 || v.granted != 0 && moment+1 >= int(v.granted) && !m.broken.fromReceipt {
				v.answers &^= 1 << moment // it would be of no use any more
			}
		}
		v.answers &= 1<<len(w.ago) - 1
		if v.applied >= v.behind {
			v.behind = 0
		}
		switch {
		case ended:
			v.reported = 0
		case !m.broken.anySuspicion:
			v.reported &= 1 << suspicion // no entry can bring back an older one
		}
	}
	return w
}

func (m *leaseModel) rename(w leaseWorld) leaseWorld {
	if one, two := w.voters[1], w.voters[2]; one.number() > two.number() {
		w.voters[1], w.voters[2] = two, one
	}
	return w
}

// number is another one for each state of a voter.
func (v leaseVoter) number() uint64 {
	return uint64(v.bound)<<48 | uint64(v.reported)<<32 |
		uint64(v.applied)<<24 | uint64(v.behind)<<16 | uint64(v.granted)<<8 | uint64(v.answers)
}

// wrong says what must never be.
func (m *leaseModel) wrong(w leaseWorld) bool {
	_, ended := m.after(&w, w.committed())
	return ended && m.now.Before(m.holder(&w).end(m.names[:len(w.voters)]))
}

// long makes the searches larger: minutes instead of seconds.
var long = flag.Bool("long", false, "search the large state spaces of the lease")

// TestLeaseStateSpace searches the protocol as it is, with bounds that are far or with time in
// finer steps. The numbers of states are there so that a fault of the search, which would see less,
// is seen itself.
func TestLeaseStateSpace(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for _, test := range []struct {
		name         string
		long         bool
		length, step int16
		entries      int
		right        bool // clocks may also be right
		states       int
	}{
		{"a lease is a step", false, 100, 100, 4, true, 62300},
		{"a lease is a little more than a step", false, 2000, 1990, 2, false, 41646},
		{"a lease is a step, and there are more entries", true, 100, 100, 6, true, 212171},
		{"a lease is a little more than a step, and there are more entries", true, 2000, 1990, 4, false, 269410},
		{"a lease is two steps", true, 200, 100, 4, false, 887109},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.long != *long {
				t.Skipf("another one finds what it does: it runs with -long=%t", test.long)
			}
			m := newLeaseModel(test.length, test.step, test.entries, brokenRules{})
			if test.right {
				m.rates = append(m.rates, test.step)
			}
			start := time.Now()
			states, way := explore(m, leaseWorld{})
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
}

// TestLeaseStateSpaceSeesMutants breaks one rule at a time. Each is needed, and the search sees it.
func TestLeaseStateSpaceSeesMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for _, test := range []struct {
		name         string
		length, step int16
		entries      int
		broken       brokenRules
	}{
		{"a voter that has just started forgets its grants", 100, 100, 2, brokenRules{hasty: true}},
		{"a voter grants before it has caught up", 100, 100, 2, brokenRules{blind: true}},
		{"reports under another suspicion count", 100, 100, 3, brokenRules{anySuspicion: true}},
		{"suspects are granted a lease", 100, 100, 2, brokenRules{grantSuspects: true}},
		{"a lease is counted from the arrival of the grant", 200, 100, 2, brokenRules{fromReceipt: true}},
		{"grants are no longer than a lease", 100, 100, 2, brokenRules{noMargin: true}},
		{"one report is enough", 100, 100, 2, brokenRules{minority: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			states, way := explore(newLeaseModel(test.length, test.step, test.entries, test.broken), leaseWorld{})
			t.Logf("%d states", states)
			if way == nil {
				t.Fatal("nothing is wrong: the search does not see that the rule is broken")
			}
			logWay(t, way)
		})
	}
}
