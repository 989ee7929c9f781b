package flotilla

import (
	"slices"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// The tests in this file and in lease_voters_test.go go through all that can happen to the lease of
// one session, in a small model, and look for a moment at which the session has been ended though
// its node still counts on its lease. The rules of time are those of lease and promises themselves.
// What is around them, keeper, verdict and the state machine, is modelled, as follows.
//
// There is one session, X. Its node is voter 0, so both have one clock; voters 1 and 2 have their
// own. Time passes in steps, of which one or two make a lease. In each step each clock advances by
// what the slowest or the fastest clock would show. Between two steps anything may happen, in any
// order and as often as it likes:
//
//   - X sends renewals at every moment. A renewal, or its answer, may arrive at any later moment,
//     more than once, or never.
//   - Leaders commit suspect, clear and end. Which node leads and why it does so does not matter,
//     only that an end needs reports. A report is for ever under way once it was made, and an end
//     for ever possible once there were enough.
//   - A voter applies the next committed entry, or lags.
//   - Voter 1 or 2 starts anew: it forgets its promises and goes back to the beginning of the log.
//     (Voter 0 does not: X would end with it.)
//
// States are told apart only by what can make a difference: times are relative to each clock's now,
// and are forgotten once they are too long ago to matter; voters 1 and 2 may change places. So the
// space is finite without a bound on time, messages or restarts. The only bound is the length of
// the log.

// leaseModel is what the search goes through.
type leaseModel struct {
	leaseRules
	entries int // of the log at most
	broken  brokenRules
}

// brokenRules are rules that do not hold. The protocol breaks none.
type brokenRules struct {
	// a voter that has just started does not wait for the promises that it may have given before
	hasty           bool
	blind           bool // a voter that has just started promises before it has caught up
	anySuspicion    bool // an end counts whichever suspicion it is about
	promiseSuspects bool // a suspect is promised a lease
	fromReceipt     bool // the lease is counted from the arrival of a promise
	noMargin        bool // the promise is no longer than the lease
	minority        bool // the report of one voter is enough
}

func newLeaseModel(length, step int16, entries int, broken brokenRules) *leaseModel {
	m := &leaseModel{leaseRules: newLeaseRules(length, step), entries: entries, broken: broken}
	if broken.noMargin {
		m.lease, m.promise = time.Duration(length), time.Duration(length)
	}
	return m
}

// leaseRules are the rules of time, which are not modelled. The present is always the same; what is
// past is known by how long ago it was.
type leaseRules struct {
	now     time.Time
	lease   time.Duration // see timing.Held
	promise time.Duration // see timing.Grant
	rates   []int16       // what a clock may advance by in a step; slow or fast
	x       lease.SessionID
	names   []string // of voters
}

// newLeaseRules returns those for leases and steps of such lengths, before the margins and by a
// right clock. Two steps must fit an int16.
func newLeaseRules(length, step int16) leaseRules {
	return leaseRules{
		now: time.Unix(0, 0), lease: timing.Of(time.Duration(length)).Held(), promise: timing.Of(time.Duration(length)).Grant(),
		rates: []int16{step - step/timing.Drift, step + step/timing.Drift}, x: lease.SessionID{Node: "0", Number: 1}, names: []string{"0", "1", "2", "3", "4"},
	}
}

// promises returns what a voter has promised that is bound for that long. What an earlier process
// of it may have promised is in that.
func (r *leaseRules) promises(bound int16) *lease.Grants {
	p := lease.NewGrants(r.promise, r.now.Add(-r.promise))
	if bound > 0 {
		p.Until[r.x] = r.now.Add(time.Duration(bound))
	}
	return p
}

// bound is the inverse of promises.
func (r *leaseRules) bound(p *lease.Grants) int16 { return int16(max(0, p.Expires(r.x).Sub(r.now))) }

// given returns how long a voter is bound after it has promised once more.
func (r *leaseRules) given(bound int16) int16 {
	p := r.promises(bound)
	p.Grant(r.x, r.now)
	return r.bound(p)
}

func (r *leaseRules) lapsed(bound int16) bool { return r.promises(bound).Expired(r.x, r.now) }

// holder returns a lease as X keeps it.
func (r *leaseRules) holder() *lease.Held {
	l := &lease.Held{Length: r.lease}
	l.Begin(r.x.Number)
	return l
}

// promised has X count the promise of a voter for a renewal that was sent so long ago, and reports
// whether it is the newest one.
func (r *leaseRules) promised(l *lease.Held, voter int, ago int16) bool {
	sent := r.now.Add(-time.Duration(ago))
	l.Grant(r.names[voter], r.x.Number, sent)
	return l.Granted[r.names[voter]].Equal(sent)
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
	// how long ago the last moments were by X's clock, the present one first; 0: longer than a lease
	ago [4]int16
	log [6]leaseEntry
}

type leaseVoter struct {
	bound int16 // how long promises bind it, or may, by its clock
	// set of entries: suspicions that it has reported to have applied while nothing bound it
	reported uint16
	applied  uint8 // entries of the log
	// the entry that a voter that has just started must apply to have caught up; 0: it has
	behind uint8
	// the newest renewal that X knows to be answered by it: 1 + the moment when that was sent; 0: none
	promised uint8
	answers  uint8 // set of moments: when the renewals were sent whose answers are under way to X
}

type leaseEntry struct {
	what ruling
	of   uint8 // the suspicion that is cleared or has come true
}

type ruling uint8

const (
	ruleSuspect ruling = 1 + iota
	ruleClear
	ruleEnd
)

// after returns what the state machine knows of X after that many entries: the suspicion that it is
// under, 0 if none, and whether it has ended.
func (m *leaseModel) after(w *leaseWorld, entries uint8) (suspicion uint8, ended bool) {
	for i, e := range w.log[:entries] {
		switch {
		case e.what == ruleSuspect && suspicion == 0:
			suspicion = uint8(i) + 1
		case e.what == ruleClear && suspicion == e.of:
			suspicion = 0
		case e.what == ruleEnd && (suspicion == e.of || m.broken.anySuspicion):
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
func (m *leaseModel) holder(w *leaseWorld) *lease.Held {
	l := m.leaseRules.holder()
	for i, v := range w.voters {
		if v.promised != 0 {
			m.leaseRules.promised(l, i, w.ago[v.promised-1])
		}
	}
	return l
}

// next calls to with every state that may come next, and with what has happened.
func (m *leaseModel) next(w leaseWorld, to func(event, leaseWorld)) {
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
func (m *leaseModel) timePasses(w leaseWorld, to func(event, leaseWorld)) {
	for _, x := range m.rates {
		for _, one := range m.ratesOf(w.voters[1]) {
			for _, two := range m.ratesOf(w.voters[2]) {
				n := w
				n.ago = m.laterBy(x, w.ago)
				for i, rate := range []int16{x, one, two} {
					v := &n.voters[i]
					v.bound = max(0, v.bound-rate)
					v.answers <<= 1
					if v.promised != 0 {
						v.promised++
					}
				}
				to(event{what: "time passes; the clocks advance by %d, %d and %d", args: [3]int16{x, one, two}}, n)
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

// voterActs lets a voter answer renewals, apply an entry, report, or start anew.
func (m *leaseModel) voterActs(w leaseWorld, i int, to func(event, leaseWorld)) {
	v := w.voters[i]
	suspicion, ended := m.after(&w, v.applied)
	if !ended && (suspicion == 0 || m.broken.promiseSuspects) && (v.behind == 0 || m.broken.blind) {
		for moment, ago := range w.ago {
			if moment > 0 && (ago == 0 || i == 0) { // its own node's renewals need no message
				break
			}
			n := w
			v := &n.voters[i]
			v.bound = m.given(v.bound)
			if i == 0 {
				m.promised(&n, i, uint8(moment))
			} else {
				v.answers |= 1 << moment
			}
			to(event{what: "voter %d promises; the renewal was sent %d before", args: [3]int16{int16(i), ago}}, n)
		}
	}
	if v.applied < w.committed() {
		n := w
		n.voters[i].applied++
		if !m.broken.blind {
			n.voters[i].applied = max(n.voters[i].applied, v.behind) // it does nothing on the way
		}
		to(event{what: "voter %d applies the log up to entry %d", args: [3]int16{int16(i), int16(n.voters[i].applied)}}, n)
	}
	if suspicion != 0 && v.behind == 0 && m.lapsed(v.bound) {
		n := w
		n.voters[i].reported |= 1 << suspicion
		to(event{what: "voter %d reports that nothing binds it, under suspicion %d", args: [3]int16{int16(i), int16(suspicion)}}, n)
	}
	if i > 0 {
		n := w
		n.voters[i].applied, n.voters[i].behind = 0, w.committed()
		n.voters[i].bound = m.bound(lease.NewGrants(m.promise, m.now))
		if m.broken.hasty {
			n.voters[i].bound = 0
		}
		to(event{what: "voter %d starts anew", args: [3]int16{int16(i)}}, n)
	}
}

// leaseGrows lets promises arrive.
func (m *leaseModel) leaseGrows(w leaseWorld, i int, to func(event, leaseWorld)) {
	for moment := range w.ago {
		if w.voters[i].answers&(1<<moment) != 0 {
			n := w
			m.promised(&n, i, uint8(moment))
			to(event{what: "X gets voter %d's promise for the renewal that was sent %d before", args: [3]int16{int16(i), w.ago[moment]}}, n)
		}
	}
}

// promised counts a promise.
func (m *leaseModel) promised(w *leaseWorld, i int, moment uint8) {
	if m.broken.fromReceipt {
		moment = 0
	}
	if m.leaseRules.promised(m.holder(w), i, w.ago[moment]) {
		w.voters[i].promised = moment + 1
	}
}

// leaderActs commits an entry. One that changes nothing makes no difference to anybody.
func (m *leaseModel) leaderActs(w leaseWorld, to func(event, leaseWorld)) {
	last := w.committed()
	suspicion, ended := m.after(&w, last)
	if ended || int(last) == m.entries {
		return
	}
	commit := func(what string, e leaseEntry) {
		n := w
		n.log[last] = e
		if s, ended := m.after(&n, last+1); s != suspicion || ended {
			to(event{what: what, args: [3]int16{int16(last) + 1, int16(e.of)}}, n)
		}
	}
	commit("entry %d is committed: suspect", leaseEntry{what: ruleSuspect})
	for of := uint8(1); of <= last; of++ {
		commit("entry %d is committed: clear %d", leaseEntry{ruleClear, of})
		reports := 0
		for _, v := range w.voters {
			if v.reported&(1<<of) != 0 {
				reports++
			}
		}
		if reports > len(w.voters)/2 || m.broken.minority && reports > 0 {
			commit("entry %d is committed: end, for suspicion %d has come true", leaseEntry{ruleEnd, of})
		}
	}
}

func (m *leaseModel) forget(w leaseWorld) leaseWorld {
	suspicion, ended := m.after(&w, w.committed())
	for i := range w.voters {
		v := &w.voters[i]
		if v.promised > 1 && (int(v.promised) > len(w.ago) || w.ago[v.promised-1] == 0) {
			v.promised = 0
		}
		for moment, ago := range w.ago {
			if moment > 0 && ago == 0 || v.promised != 0 && moment+1 >= int(v.promised) && !m.broken.fromReceipt {
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
		uint64(v.applied)<<24 | uint64(v.behind)<<16 | uint64(v.promised)<<8 | uint64(v.answers)
}

// wrong says what must never be.
func (m *leaseModel) wrong(w leaseWorld) bool {
	_, ended := m.after(&w, w.committed())
	return ended && m.now.Before(m.holder(&w).End(m.names[:len(w.voters)]))
}

// TestLeaseStateSpace searches the protocol as it is, with bounds that are far or with time in
// finer steps. The numbers of states are there so that a fault of the search, which would see less,
// is seen itself.
func TestLeaseStateSpace(t *testing.T) {
	for _, test := range []struct {
		name         string
		short        bool // for tests that must not take long
		length, step int16
		entries      int
		right        bool // clocks may also be right
		states       int
	}{
		{"a lease is a step", true, 100, 100, 4, true, 62300},
		{"a lease is a little more than a step", true, 2000, 1990, 2, false, 41646},
		{"a lease is a step, and much is judged", false, 100, 100, 6, true, 212171},
		{"a lease is a little more than a step, and much is judged", false, 2000, 1990, 4, false, 269410},
		{"a lease is two steps", false, 200, 100, 4, false, 887109},
	} {
		if test.short != (testing.Short() || RaceEnabled) {
			continue // the long ones find what the short ones do
		}
		t.Run(test.name, func(t *testing.T) {
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
	for _, test := range []struct {
		name         string
		length, step int16
		entries      int
		broken       brokenRules
	}{
		{"a voter that has just started forgets its promises", 100, 100, 2, brokenRules{hasty: true}},
		{"a voter promises before it has caught up", 100, 100, 2, brokenRules{blind: true}},
		{"reports under another suspicion count", 100, 100, 3, brokenRules{anySuspicion: true}},
		{"suspects are promised a lease", 100, 100, 2, brokenRules{promiseSuspects: true}},
		{"a lease is counted from the arrival of the promise", 200, 100, 2, brokenRules{fromReceipt: true}},
		{"promises are no longer than a lease", 100, 100, 2, brokenRules{noMargin: true}},
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
