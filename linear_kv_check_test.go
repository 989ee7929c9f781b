package flotilla_test

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// kvKind is what an operation on a bucket is.
type kvKind string

const (
	kvPut    kvKind = "put"
	kvDelete kvKind = "delete"
	kvUpdate kvKind = "update"
	kvTxn    kvKind = "txn" // conditions, and puts and deletions
	kvGet    kvKind = "get"
)

// kvOp is one call on a bucket, from its beginning to its end.
type kvOp struct {
	kind kvKind
	node int

	conds    []kvCond
	writes   []kvWrite // of get: what it returned
	conflict int       // the condition that was not true, from 1; 0: none

	open      bool // whether it took effect is not known, and it may still do
	lost      bool // it may have taken effect, but not after its end
	unready   bool // get: the node said that it was not ready
	call, ret int64
	from, to  time.Duration
}

// kvCond is a condition: the entry has this version. 0: there is none.
type kvCond struct {
	key     string
	version uint64
}

// kvWrite is what an entry was made, or found to be. Values are unique; an empty one stands for no
// entry.
type kvWrite struct {
	key, value string
	version    uint64 // 0: not known
	session    bool
}

// String writes the operation down on a line.
func (o kvOp) String() string {
	return fmt.Sprintf("[%d %d] n%d %v–%v %s if %v: %+v, conflict %d, open %v, lost %v", o.call, o.ret, o.node, o.from, o.to, o.kind, o.conds, o.writes, o.conflict, o.open, o.lost)
}

// kvEvent is what a watch has yielded.
type kvEvent struct {
	key, value string // an empty value: deleted
	version    uint64
	expired    bool
}

// kvWatch is one watch of a bucket, on one node.
type kvWatch struct {
	node   int
	began  int64     // when it yielded for the first time: it had read the state by then
	first  []kvEvent // the present entries
	events []kvEvent
	whole  bool // it went on until all was over
}

// kvHistory is what happened to one bucket.
type kvHistory struct {
	ops     []kvOp
	watches []kvWatch
	final   map[string]kvEvent // what is there in the end, by key

	// lossy reports whether a node may have lost its session in a time.
	lossy func(node int, from, to time.Duration) bool
}

// judge finds what is wrong with a history.
func (h *kvHistory) judge() (faults []string) {
	versions := make(map[string]uint64) // by value
	know := func(what string, value string, version uint64) {
		if value == "" || version == 0 {
			return
		}
		if before, ok := versions[value]; ok && before != version {
			faults = append(faults, fmt.Sprintf("%s has %q with version %d, and it has %d elsewhere", what, value, version, before))
		}
		versions[value] = version
	}
	for _, o := range h.ops {
		for _, w := range o.writes {
			know(o.String(), w.value, w.version)
		}
	}
	for _, w := range h.watches {
		for _, e := range slices.Concat(w.first, w.events) {
			know(fmt.Sprintf("the watch of n%d", w.node), e.value, e.version)
		}
		faults = append(faults, w.check(h.final)...)
	}
	for key, e := range h.final {
		know("in the end "+key, e.value, e.version)
	}
	writers := make(map[string]bool)
	for i := range h.ops {
		o := &h.ops[i]
		for j := range o.writes {
			w := &o.writes[j]
			if o.kind == kvGet {
				continue
			}
			writers[w.value] = true
			if v, ok := versions[w.value]; ok && w.value != "" {
				w.version = v
				o.open, o.lost = false, false // it was seen, so it took effect
			}
		}
	}
	for value := range versions {
		if !writers[value] {
			faults = append(faults, fmt.Sprintf("nobody has written %q", value))
		}
	}
	faults = append(faults, h.checkEvents()...)
	faults = append(faults, h.checkWrites()...)
	return append(faults, h.checkReads()...)
}

// check checks a watch by itself: the versions rise, no entry is yielded twice, and its end is that
// of the bucket.
func (w kvWatch) check(final map[string]kvEvent) (faults []string) {
	has := make(map[string]kvEvent)
	var last uint64
	for _, e := range w.first {
		if _, twice := has[e.key]; twice {
			faults = append(faults, fmt.Sprintf("the watch of n%d begins with %q twice", w.node, e.key))
		}
		has[e.key] = e
		last = max(last, e.version)
	}
	for _, e := range w.events {
		if e.version < last {
			faults = append(faults, fmt.Sprintf("the watch of n%d goes back from version %d: %+v", w.node, last, e))
		}
		if e.version <= has[e.key].version {
			faults = append(faults, fmt.Sprintf("the watch of n%d yields %+v behind %+v", w.node, e, has[e.key]))
		}
		last, has[e.key] = e.version, e
	}
	if !w.whole {
		return faults
	}
	maps.DeleteFunc(has, func(_ string, e kvEvent) bool { return e.value == "" })
	for key := range maps.Keys(final) {
		if has[key].version != final[key].version {
			faults = append(faults, fmt.Sprintf("in the end the watch of n%d has %+v, and the bucket %+v", w.node, has[key], final[key]))
		}
	}
	for key := range has {
		if _, ok := final[key]; !ok {
			faults = append(faults, fmt.Sprintf("in the end the watch of n%d has %+v, and the bucket has no such entry", w.node, has[key]))
		}
	}
	return faults
}

// checkEvents checks that no watch has lost a change: of each change behind its beginning it has
// yielded that or a newer one of the same entry, if it has yielded anything newer at all. A change
// of an entry that the watch did not find lies behind its beginning if it was asked for later, or
// lies behind the first event: before that the entry may have come and gone.
func (h *kvHistory) checkEvents() (faults []string) {
	type change struct {
		key     string
		version uint64
	}
	asked := make(map[change]int64) // when; not known: 0
	for _, w := range h.watches {
		for _, e := range w.events {
			asked[change{e.key, e.version}] = 0
		}
	}
	for _, o := range h.ops {
		for _, w := range o.writes {
			if o.kind != kvGet && w.version != 0 && o.conflict == 0 {
				asked[change{w.key, w.version}] = o.call
			}
		}
	}
	for _, w := range h.watches {
		var begin, end uint64
		found, newest := make(map[string]bool), make(map[string]uint64)
		for _, e := range w.first {
			begin, found[e.key] = max(begin, e.version), true
		}
		for _, e := range slices.Concat(w.first, w.events) {
			newest[e.key], end = max(newest[e.key], e.version), max(end, e.version)
		}
		for c, call := range asked {
			behind := c.version > begin && (found[c.key] || call > w.began || len(w.events) > 0 && c.version > w.events[0].version)
			if behind && c.version < end && newest[c.key] < c.version {
				faults = append(faults, fmt.Sprintf("the watch of n%d has lost the change of %q by entry %d; its newest is %d", w.node, c.key, c.version, newest[c.key]))
			}
		}
	}
	return faults
}

// kvState is the state of a bucket's model: its entries by key.
type kvState struct {
	last    uint64 // the newest version that is known
	entries [2]kvWrite
	node    [2]int // that wrote the entry
	since   [2]time.Duration
}

// kvKeys are the keys of a bucket.
func kvKeys() []string { return []string{"x", "y"} }

// losses returns the states that s may have become by a time: entries of sessions may be gone.
func (h *kvHistory) losses(s kvState, by time.Duration) []kvState {
	all := []kvState{s}
	for i, e := range s.entries {
		if !e.session || !h.lossy(s.node[i], s.since[i], by) {
			continue
		}
		for _, other := range all {
			other.entries[i], other.node[i], other.since[i] = kvWrite{}, 0, 0
			all = append(all, other)
		}
	}
	return all
}

// step returns the states after an operation on s, none if it cannot have had its result.
func (s kvState) step(o kvOp) []kvState {
	for n, c := range o.conds {
		e := s.entries[slices.Index(kvKeys(), c.key)]
		known := e.value == "" || c.version == 0 || e.version != 0
		holds := (e.value == "") == (c.version == 0) && (c.version == 0 || e.version == c.version)
		switch {
		case o.conflict == n+1 && known && holds:
			return nil
		case o.conflict == n+1, known && !holds && (o.open || o.lost):
			return []kvState{s}
		case known && !holds:
			return nil
		}
	}
	if o.conflict != 0 {
		return nil
	}
	next := s
	for _, w := range o.writes {
		if w.version != 0 && w.version <= s.last {
			if o.open || o.lost {
				return []kvState{s}
			}
			return nil
		}
		next.last = max(next.last, w.version)
		i := slices.Index(kvKeys(), w.key)
		next.entries[i], next.node[i], next.since[i] = kvWrite{}, 0, 0
		if w.value != "" {
			next.entries[i], next.node[i], next.since[i] = w, o.node, o.from
		}
	}
	if o.open || o.lost {
		return []kvState{s, next}
	}
	return []kvState{next}
}

// checkWrites looks for an order of all writes, and of what is there in the end, that explains
// their results.
func (h *kvHistory) checkWrites() []string {
	var ops []kvOp
	var end int64
	for _, o := range h.ops {
		if o.kind != kvGet {
			ops = append(ops, o)
		}
		if end = max(end, o.call); o.ret != math.MaxInt64 {
			end = max(end, o.ret)
		}
	}
	var last []kvWrite
	for _, key := range kvKeys() {
		e := h.final[key]
		last = append(last, kvWrite{key: key, value: e.value, version: e.version})
	}
	ops = append(ops, kvOp{kind: kvGet, writes: last, call: end + 1, ret: end + 2, to: noEnd})
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{kvState{}} },
		Step: func(state, input, _ any) (after []any) {
			o := input.(kvOp)
			for _, s := range h.losses(state.(kvState), o.to) {
				if o.kind != kvGet {
					for _, next := range s.step(o) {
						after = append(after, next)
					}
					continue
				}
				if !slices.ContainsFunc(o.writes, func(w kvWrite) bool { return s.entries[slices.Index(kvKeys(), w.key)].value != w.value }) {
					after = append(after, s)
				}
			}
			return after
		},
	}
	slices.SortFunc(ops, func(a, b kvOp) int { return cmp.Compare(a.call, b.call) })
	check := func(ops []kvOp) porcupine.CheckResult {
		var history []porcupine.Operation
		for _, o := range ops {
			history = append(history, porcupine.Operation{Input: o, Call: o.call, Return: o.ret})
		}
		return porcupine.CheckOperationsTimeout(model.ToModel(), history, checkTimeout)
	}
	result := check(ops)
	if result == porcupine.Ok {
		return nil
	}
	good := len(ops) - 1
	for good > 0 && result == porcupine.Illegal && check(ops[:good]) != porcupine.Ok {
		good--
	}
	var lines []string
	for _, o := range ops[max(0, good-12):min(len(ops), good+4)] {
		lines = append(lines, o.String())
	}
	return []string{fmt.Sprintf("there is no order of these operations (%s); the first %d of %d have one, the last of these are:\n%s", result, good, len(ops), strings.Join(lines, "\n"))}
}

// checkReads checks that no read is older than the last write of its key that was acknowledged
// before it began. An entry that was bound to a session may be gone.
func (h *kvHistory) checkReads() (faults []string) {
	for _, r := range h.ops {
		if r.kind != kvGet || r.unready {
			continue
		}
		got := r.writes[0]
		for _, o := range h.ops {
			if o.kind == kvGet || o.open || o.lost || o.conflict != 0 || o.ret >= r.call {
				continue
			}
			for _, w := range o.writes {
				if w.key == got.key && w.version != 0 && got.value != "" && got.version < w.version {
					faults = append(faults, fmt.Sprintf("a read is too old: %v; before it %v", r, o))
				}
			}
		}
		newer := slices.ContainsFunc(h.ops, func(o kvOp) bool {
			return slices.ContainsFunc(o.writes, func(w kvWrite) bool { return w.key == got.key && w.value == "" && o.kind != kvGet && o.call < r.ret })
		})
		if got.value == "" && !newer && h.mustBeThere(got.key, r) {
			faults = append(faults, fmt.Sprintf("a read finds nothing, and nobody has deleted it: %v", r))
		}
	}
	return faults
}

// mustBeThere reports whether an entry that is bound to no session was written before a read.
func (h *kvHistory) mustBeThere(key string, r kvOp) bool {
	last := kvWrite{session: true}
	for _, o := range h.ops {
		for _, w := range o.writes {
			if o.kind != kvGet && o.conflict == 0 && w.key == key && o.call < r.ret && w.version >= last.version {
				if w.session || o.open || o.lost || o.ret >= r.call {
					return false
				}
				last = w
			}
		}
	}
	return !last.session && last.value != ""
}

// Each part of the check passes what is right, and finds the mistake in what is not.
func TestKVCheckersSeeMutants(t *testing.T) {
	put := func(call, ret int64, key, value string, version uint64) kvOp {
		return kvOp{kind: kvPut, writes: []kvWrite{{key: key, value: value, version: version}}, call: call, ret: ret, from: time.Duration(call), to: time.Duration(ret)}
	}
	del := func(call, ret int64, key string) kvOp {
		o := put(call, ret, key, "", 0)
		o.kind = kvDelete
		return o
	}
	get := func(call, ret int64, key, value string, version uint64) kvOp {
		o := put(call, ret, key, value, version)
		o.kind = kvGet
		return o
	}
	open := func(o kvOp) kvOp { o.open, o.ret = true, math.MaxInt64; return o }
	unready := func(o kvOp) kvOp { o.unready = true; return o }
	of := func(node int, o kvOp) kvOp {
		o.node, o.writes = node, slices.Clone(o.writes)
		o.writes[0].session = true
		return o
	}
	when := func(o kvOp, key string, version uint64) kvOp {
		o.conds = append(o.conds, kvCond{key, version})
		return o
	}
	conflict := func(o kvOp, n int) kvOp { o.conflict = n; return o }
	both := func(call, ret int64, x, y string, version uint64) kvOp {
		o := put(call, ret, "x", x, version)
		o.kind = kvTxn
		o.writes = append(o.writes, kvWrite{key: "y", value: y, version: version})
		return o
	}
	is := func(key, value string, version uint64) kvEvent {
		return kvEvent{key: key, value: value, version: version}
	}
	end := func(all ...kvEvent) map[string]kvEvent {
		final := make(map[string]kvEvent)
		for _, e := range all {
			final[e.key] = e
		}
		return final
	}
	watched := func(first int, all ...kvEvent) kvWatch {
		return kvWatch{first: all[:first], events: all[first:], whole: true}
	}
	part := func(w kvWatch) kvWatch { w.whole = false; return w }
	from := func(began int64, w kvWatch) kvWatch { w.began = began; return w }
	ops := func(all ...kvOp) []kvOp { return all }
	a, b := put(1, 2, "x", "a", 5), put(3, 4, "x", "b", 6)
	for _, test := range []struct {
		name    string
		ops     []kvOp
		final   map[string]kvEvent
		watches []kvWatch
		wrong   string // a part of what is found; empty: nothing is
	}{
		{"one after the other", ops(a, b, get(5, 6, "x", "b", 6)), end(is("x", "b", 6)), nil, ""},
		{"a version goes back", ops(put(1, 2, "x", "a", 6), put(3, 4, "x", "b", 5)), end(is("x", "b", 5)), nil, "no order"},
		{"a write is lost", ops(a, b), end(is("x", "a", 5)), nil, "no order"},
		{"a deletion is lost", ops(a, del(3, 4, "x")), end(is("x", "a", 5)), nil, "no order"},
		{"half of a transaction is lost", ops(a, both(3, 4, "b", "c", 6)), end(is("x", "b", 6)), nil, "no order"},
		{"an open write takes effect", ops(a, open(put(3, 0, "x", "b", 0))), end(is("x", "b", 6)), nil, ""},
		{"the last write is open", ops(a, open(put(7, 0, "x", "b", 0))), end(is("x", "b", 6)), nil, ""},
		{"an open write takes no effect", ops(a, open(put(3, 0, "x", "b", 0))), end(is("x", "a", 5)), nil, ""},
		{"a value from nowhere", ops(a), end(is("x", "z", 5)), nil, "nobody has written"},
		{"two versions of a value", ops(a, get(3, 4, "x", "a", 6)), end(is("x", "a", 5)), nil, "elsewhere"},

		{"a condition is true", ops(a, when(b, "x", 5)), end(is("x", "b", 6)), nil, ""},
		{"a condition is not true, and the write takes effect", ops(a, when(b, "x", 4)), end(is("x", "b", 6)), nil, "no order"},
		{"absent, and it is not", ops(a, when(b, "x", 0)), end(is("x", "b", 6)), nil, "no order"},
		{"a conflict", ops(a, conflict(when(put(3, 4, "x", "b", 0), "x", 4), 1)), end(is("x", "a", 5)), nil, ""},
		{"a conflict without reason", ops(a, conflict(when(put(3, 4, "x", "b", 0), "x", 5), 1)), end(is("x", "a", 5)), nil, "no order"},
		{"a conflict of the wrong condition", ops(a, conflict(when(when(put(3, 4, "x", "b", 0), "x", 4), "y", 0), 2)), end(is("x", "a", 5)), nil, "no order"},
		{"an update that was overtaken", ops(a, b, when(put(3, 6, "x", "c", 7), "x", 5)), end(is("x", "c", 7)), nil, "no order"},

		{"the entry of a session that was lost", ops(of(9, a)), end(), nil, ""},
		{"the entry of a session that was not lost", ops(of(1, a)), end(), nil, "no order"},
		{"the entry of no session", ops(a), end(), nil, "no order"},

		{"a fresh read", ops(a, b, get(5, 6, "x", "b", 6)), end(is("x", "b", 6)), nil, ""},
		{"a stale read", ops(a, b, get(5, 6, "x", "a", 5)), end(is("x", "b", 6)), nil, "too old"},
		{"a stale read of nothing", ops(a, get(5, 6, "x", "", 0)), end(is("x", "a", 5)), nil, "nobody has deleted"},
		{"a read of nothing behind a conflict", ops(conflict(when(put(1, 2, "x", "a", 0), "x", 4), 1), get(3, 4, "x", "", 0)), end(), nil, ""},
		{"a stale read on a node that is not ready", ops(a, b, unready(get(5, 6, "x", "a", 5))), end(is("x", "b", 6)), nil, ""},

		{"a watch", ops(a, b), end(is("x", "b", 6)), []kvWatch{watched(1, is("x", "a", 5), is("x", "b", 6))}, ""},
		{"a watch skips", ops(a, b), end(is("x", "b", 6)), []kvWatch{watched(0, is("x", "b", 6))}, ""},
		{"a watch loses the last change", ops(a, b), end(is("x", "b", 6)), []kvWatch{watched(0, is("x", "a", 5))}, "in the end the watch"},
		{"a watch loses a deletion", ops(a, del(3, 4, "x")), end(), []kvWatch{watched(0, is("x", "a", 5))}, "no such entry"},
		{"a watch that ended early", ops(a, b), end(is("x", "b", 6)), []kvWatch{part(watched(0, is("x", "a", 5)))}, ""},
		{"a watch loses a change in between", ops(a, put(3, 4, "y", "b", 6)), end(is("x", "a", 5), is("y", "b", 6)), []kvWatch{part(watched(0, is("y", "b", 6)))}, "has lost"},
		{"a watch begins behind a deletion", ops(put(1, 2, "y", "b", 4), a, del(3, 4, "x"), put(7, 8, "y", "c", 8)), end(is("y", "c", 8)), []kvWatch{from(5, watched(1, is("y", "b", 4), is("y", "c", 8)))}, ""},
		{"a watch loses what was asked for later", ops(put(1, 2, "y", "b", 4), put(3, 6, "x", "a", 5), put(7, 8, "y", "c", 8)), end(is("x", "a", 5), is("y", "c", 8)), []kvWatch{part(from(2, watched(1, is("y", "b", 4), is("y", "c", 8))))}, "has lost"},
		{"a watch loses what is behind its first event", ops(put(1, 2, "y", "b", 4), a, put(7, 8, "y", "c", 8)), end(is("x", "a", 5), is("y", "c", 8)), []kvWatch{part(from(9, watched(0, is("y", "b", 4), is("y", "c", 8))))}, "has lost"},
		{"a watch yields twice", ops(a), end(is("x", "a", 5)), []kvWatch{watched(0, is("x", "a", 5), is("x", "a", 5))}, "behind"},
		{"a watch yields what was there again", ops(a), end(is("x", "a", 5)), []kvWatch{watched(1, is("x", "a", 5), is("x", "a", 5))}, "behind"},
		{"a watch goes back", ops(a, put(3, 4, "y", "b", 6)), end(is("x", "a", 5), is("y", "b", 6)), []kvWatch{watched(0, is("y", "b", 6), is("x", "a", 5))}, "goes back"},
		{"a watch invents", ops(a), end(is("x", "a", 5)), []kvWatch{watched(0, is("x", "z", 4), is("x", "a", 5))}, "nobody has written"},
		{"a watch has another version", ops(a), end(is("x", "a", 5)), []kvWatch{watched(0, is("x", "a", 6))}, "elsewhere"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := kvHistory{ops: test.ops, final: test.final, watches: test.watches}
			h.lossy = func(node int, _, _ time.Duration) bool { return node == 9 }
			faults := strings.Join(h.judge(), "\n")
			if test.wrong == "" && faults != "" || !strings.Contains(faults, test.wrong) {
				t.Errorf("found %q, want %q", faults, test.wrong)
			}
		})
	}
}
