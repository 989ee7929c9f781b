package flotilla_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// Parameters of what is demanded of the cluster.
const (
	// lossSlack is how long after a fault of its node a lock may still be lost for it.
	lossSlack = 2 * time.Second

	// lossAfter is the part of a lease for which a node may be cut off without losing its locks,
	// even if other nodes are cut off too.
	lossAfter = 0.5

	// abandonedSlack is how long after the last fault of its node a claim may stand that its caller
	// has given up, or that was a dead process's.
	abandonedSlack = 10 * time.Second
)

// history is what happened to a cluster and what came of it.
type history struct {
	lease time.Duration
	cuts  [][]window // by node; the last one has no end while it goes on
	ops   []operation
}

// window is a time in which a node was dead, or cut off from some other. Times are since the start.
type window struct {
	from, to time.Duration
	dead     bool // its process ended
}

const noEnd = time.Duration(math.MaxInt64)

// kind is what an operation is.
type kind string

const (
	wrote    kind = "store"  // of a value, or of "": a deletion
	loaded   kind = "load"   // of a value, or of "": there is none
	locked   kind = "lock"   // was granted
	busy     kind = "busy"   // TryLock found the lock held
	unlocked kind = "unlock" //
)

// operation is one call of one client, from its beginning to its end.
type operation struct {
	kind    kind
	node    int
	key     string
	value   string
	holding int64 // which lock and unlock have in common
	open    bool  // whether it took effect is not known, and it may still do
	// the lock that was to be unlocked is; a write may have taken effect, but not after its end
	lost      bool
	excused   bool  // busy: there may have been a claim that nobody knows of
	final     bool  // read: everything was over
	unready   bool  // read: the node said that it was not ready
	call, ret int64 // ticks
	from, to  time.Duration
}

// String writes the operation down on a line.
func (o operation) String() string {
	s := fmt.Sprintf("[%d %d] n%d %v–%v %s %s %q", o.call, o.ret, o.node, o.from, o.to, o.kind, o.key, o.value)
	if o.holding != 0 {
		s += fmt.Sprintf(" holding %d", o.holding)
	}
	for name, is := range map[string]bool{"open": o.open, "lost": o.lost, "excused": o.excused, "final": o.final, "unready": o.unready} {
		if is {
			s += " " + name
		}
	}
	return s
}

// lossy reports whether a node may have lost at some time between from and to what it held at from.
func (h *history) lossy(node int, from, to time.Duration) bool {
	least := time.Duration(lossAfter * float64(h.lease))
	return slices.ContainsFunc(h.cuts[node], func(w window) bool {
		return w.from <= to && w.to+lossSlack >= from && (w.dead || w.to-w.from >= least)
	})
}

// judge finds what is wrong with a history, and says how many reads it has judged.
func (h *history) judge() (faults []string, reads int) {
	for i := range h.ops {
		o := &h.ops[i]
		o.excused = o.kind == busy && slices.ContainsFunc(h.ops, func(g operation) bool {
			if g.key != o.key {
				return false
			}
			// Either a claim whose caller has given up; or the claim of a session that has ended
			// before its caller heard of the grant, who goes on with another claim in the next
			// session; or a caller who has lost the lock and does not know it yet, for whom the
			// next one of its node has to wait. An unlock that was never answered does not say
			// whether its lock was lost.
			return g.kind == locked && g.open && g.call < o.ret && o.from <= h.calmAfter(g.node, g.to) ||
				(g.kind == locked || g.kind == busy) && g.call < o.ret && o.call < g.ret && g.holding != o.holding && h.lossy(g.node, g.from, g.to) ||
				g.kind == unlocked && g.holding < o.ret && (g.lost && o.call < g.ret || g.open && o.from <= g.to)
		})
	}
	byKey := make(map[string][]operation)
	for _, o := range h.ops {
		byKey[o.key] = append(byKey[o.key], o)
		if o.kind == loaded && !o.unready {
			reads++
		}
	}
	for key, ops := range byKey {
		if strings.HasPrefix(key, "lock/") {
			faults = append(faults, checkLock(ops, h.lossy)...)
			continue
		}
		faults = append(faults, checkWrites(ops)...)
		faults = append(faults, checkReads(ops)...)
	}
	return faults, reads
}

// calmAfter is when a node has been well for abandonedSlack, after t.
func (h *history) calmAfter(node int, t time.Duration) time.Duration {
	t += abandonedSlack
	for _, w := range h.cuts[node] {
		if w.from <= t && w.to+abandonedSlack > t {
			t = w.to + abandonedSlack
		}
	}
	return t
}

// checkTimeout bounds one search. A search that is not over by then is a failure: nothing is known.
const checkTimeout = 20 * time.Second

// search looks for an order of operations on one key that explains their results.
func search(model porcupine.Model, ops []operation) (faults []string) {
	slices.SortFunc(ops, func(a, b operation) int { return cmp.Compare(a.call, b.call) })
	check := func(ops []operation) porcupine.CheckResult {
		var history []porcupine.Operation
		for _, o := range ops {
			history = append(history, porcupine.Operation{Input: o, Call: o.call, Return: o.ret})
		}
		return porcupine.CheckOperationsTimeout(model, history, checkTimeout)
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
	return []string{fmt.Sprintf("there is no order of these operations (%s); the first %d of %d have one, the last of these are:\n%s",
		result, good, len(ops), strings.Join(lines, "\n"))}
}

// checkWrites checks that the acknowledged writes to one key are there in the end, as far as none
// came later.
func checkWrites(ops []operation) []string {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{""} },
		Step: func(state, input, _ any) []any {
			switch o := input.(operation); {
			case o.kind == loaded && o.value == state:
				return []any{state}
			case o.kind == loaded:
				return nil
			case o.open || o.lost:
				return []any{state, o.value}
			default:
				return []any{o.value}
			}
		},
	}
	return search(model.ToModel(), slices.DeleteFunc(slices.Clone(ops), func(o operation) bool { return o.kind == loaded && !o.final }))
}

// checkReads checks that the reads of one key, on nodes that say that they are ready, give a value
// that was written, not after their end, and not replaced for certain before their beginning: a
// write after whose end another one began that was acknowledged before the read began is too old.
func checkReads(ops []operation) (faults []string) {
	writes := []operation{{kind: wrote, call: -1, ret: -1}} // nothing was there at first
	for _, o := range ops {
		if o.kind == wrote {
			writes = append(writes, o)
		}
	}
	for _, r := range ops {
		if r.kind != loaded || r.unready {
			continue
		}
		// the last write that would have been right if it were not too old, and what came after it
		var replaced []operation
		fresh := slices.ContainsFunc(writes, func(w operation) bool {
			if w.value != r.value || w.call > r.ret {
				return false
			}
			i := slices.IndexFunc(writes, func(later operation) bool {
				return !later.open && !later.lost && later.call > w.ret && later.ret < r.call
			})
			if i >= 0 {
				replaced = []operation{w, writes[i]}
			}
			return i < 0
		})
		if !fresh {
			faults = append(faults, fmt.Sprintf("a read is too old, or of nothing that was written: %v; written and replaced: %v", r, replaced))
		}
	}
	return faults
}

// checkLock checks that one lock had one holder at a time. lossy reports whether a node may have
// lost its locks in a time.
func checkLock(ops []operation, lossy func(node int, from, to time.Duration) bool) []string {
	type holder struct {
		holding int64 // 0: nobody
		node    int
		since   time.Duration
	}
	model := porcupine.Model{
		Init: func() any { return holder{} },
		Step: func(state, input, _ any) (bool, any) {
			h, o := state.(holder), input.(operation)
			gone := h.holding == 0 || lossy(h.node, h.since, o.to)
			switch {
			case o.kind == locked:
				return gone, holder{o.holding, o.node, o.from}
			case o.kind == busy:
				return h.holding != 0 || o.excused, h
			case h.holding == o.holding: // unlock
				return gone || !o.lost, holder{}
			default:
				return o.lost || o.open, h
			}
		},
	}
	// A claim of which its caller heard nothing is no holder that anybody knows of: see
	// operation.excused.
	return search(model, slices.DeleteFunc(slices.Clone(ops), func(o operation) bool { return o.kind == locked && o.open }))
}

// holders checks tenures of roles: those of one role do not overlap, and their fences grow. It may
// be used by all nodes at once.
type holders struct {
	mu  sync.Mutex
	all []tenure // in the order in which they began
}

// tenure is the time for which a node knew that it had a role: until its context ended or its
// function returned. Times are since some start.
type tenure struct {
	role       string
	node       int
	fence      uint64
	begin, end time.Duration // end is noEnd while it goes on
}

// String writes the tenure down on a line.
func (t tenure) String() string {
	return fmt.Sprintf("%s n%d fence %d %v–%v", t.role, t.node, t.fence, t.begin, t.end)
}

// begin records that a tenure has begun, and returns what is to be called when it ends; later calls
// do nothing.
func (h *holders) begin(role string, node int, fence uint64, now func() time.Duration) (end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := len(h.all)
	h.all = append(h.all, tenure{role, node, fence, now(), noEnd})
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all[i].end = min(h.all[i].end, now())
	}
}

// died ends all tenures of a node whose process has ended.
func (h *holders) died(node int, now time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.all {
		if t := &h.all[i]; t.node == node {
			t.end = min(t.end, now)
		}
	}
}

// since is how many tenures of a role have begun after a time.
func (h *holders) since(role string, from time.Duration) (count int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.all {
		if t.role == role && t.begin >= from {
			count++
		}
	}
	return count
}

// check finds what is wrong.
func (h *holders) check() (faults []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := make(map[string]tenure) // of each role
	longest := make(map[string]tenure)
	for _, t := range h.all {
		if before, ok := last[t.role]; ok && before.fence >= t.fence {
			faults = append(faults, fmt.Sprintf("the fence does not grow: %v, then %v", before, t))
		}
		if before, ok := longest[t.role]; ok && t.begin < before.end {
			faults = append(faults, fmt.Sprintf("two holders at once: %v and %v", before, t))
		}
		last[t.role] = t
		if before, ok := longest[t.role]; !ok || before.end < t.end {
			longest[t.role] = t
		}
	}
	return faults
}

// Each checker passes what is right, and finds the mistake in what is not.
func TestLinearCheckersSeeMutants(t *testing.T) {
	op := func(k kind, call, ret int64, value string) operation {
		return operation{kind: k, call: call, ret: ret, value: value, from: time.Duration(call), to: time.Duration(ret)}
	}
	final := func(call, ret int64, value string) operation {
		o := op(loaded, call, ret, value)
		o.final = true
		return o
	}
	open := func(o operation) operation { o.open, o.ret = true, math.MaxInt64; return o }
	unready := func(o operation) operation { o.unready = true; return o }
	lost := func(o operation) operation { o.lost = true; return o }
	at := func(node int, holding int64, o operation) operation { o.node, o.holding = node, holding; return o }
	lock := func(node int, holding, call, ret int64) operation {
		return at(node, holding, op(locked, call, ret, ""))
	}
	unlock := func(node int, holding, call, ret int64) operation {
		return at(node, holding, op(unlocked, call, ret, ""))
	}
	excused := func(o operation) operation { o.excused = true; return o }
	tenures := func(all ...tenure) []string {
		h := new(holders)
		for _, want := range all {
			now := want.begin
			end := h.begin(want.role, want.node, want.fence, func() time.Duration { return now })
			if now = want.end; now < noEnd {
				end()
				now++
				end() // a later end of the same tenure does not count
			}
		}
		return h.check()
	}
	writes := func(ops ...operation) []string { return checkWrites(ops) }
	reads := func(ops ...operation) []string { return checkReads(ops) }
	locks := func(ops ...operation) []string {
		return checkLock(ops, func(node int, from, to time.Duration) bool { return node == 9 && from <= 10 && to >= 10 })
	}
	for _, test := range []struct {
		name   string
		faults []string
		wrong  bool
	}{
		{"the last write is there", writes(op(wrote, 1, 2, "a"), op(wrote, 3, 4, "b"), final(5, 6, "b")), false},
		{"an acknowledged write is lost", writes(op(wrote, 1, 2, "a"), op(wrote, 3, 4, "b"), final(5, 6, "a")), true},
		{"an acknowledged deletion is lost", writes(op(wrote, 1, 2, "a"), op(wrote, 3, 4, ""), final(5, 6, "a")), true},
		{"a value from nowhere", writes(op(wrote, 1, 2, "a"), final(5, 6, "x")), true},
		{"concurrent writes in either order", writes(op(wrote, 1, 4, "a"), op(wrote, 2, 3, "b"), final(5, 6, "a")), false},
		{"an open write takes effect late", writes(open(op(wrote, 1, 0, "a")), op(wrote, 3, 4, "b"), final(5, 6, "a")), false},
		{"an open write takes no effect", writes(open(op(wrote, 1, 0, "a")), op(wrote, 3, 4, "b"), final(5, 6, "b")), false},
		{"a write whose session was lost takes effect late", writes(lost(op(wrote, 1, 2, "a")), op(wrote, 3, 4, "b"), final(5, 6, "a")), true},
		{"two reads go back", writes(op(wrote, 1, 9, "a"), op(wrote, 2, 9, "b"), final(10, 11, "a"), final(12, 13, "b")), true},

		{"a fresh read", reads(op(wrote, 1, 2, "a"), op(wrote, 3, 4, "b"), op(loaded, 5, 6, "b")), false},
		{"a stale read", reads(op(wrote, 1, 2, "a"), op(wrote, 3, 4, "b"), op(loaded, 5, 6, "a")), true},
		{"a stale read of nothing", reads(op(wrote, 1, 2, "a"), op(loaded, 5, 6, "")), true},
		{"a stale read of what was deleted", reads(op(wrote, 1, 2, "a"), op(wrote, 3, 4, ""), op(loaded, 5, 6, "a")), true},
		{"a read of what is not yet written", reads(op(wrote, 7, 8, "a"), op(loaded, 5, 6, "a")), true},
		{"a read while it is written", reads(op(wrote, 1, 2, "a"), op(wrote, 3, 7, "b"), op(loaded, 5, 6, "a"), op(loaded, 5, 6, "b")), false},
		{"an open write may be read", reads(op(wrote, 1, 2, "a"), open(op(wrote, 3, 0, "b")), op(loaded, 5, 6, "b")), false},
		{"an open write may not be read", reads(op(wrote, 1, 2, "a"), open(op(wrote, 3, 0, "b")), op(loaded, 5, 6, "a")), false},
		{"a stale read without a lease", reads(op(wrote, 1, 2, "a"), op(wrote, 3, 4, "b"), unready(op(loaded, 5, 6, "a"))), false},

		{"one after the other", locks(lock(1, 1, 1, 2), unlock(1, 1, 3, 4), lock(2, 2, 3, 5)), false},
		{"a lock is granted twice", locks(lock(1, 1, 1, 2), lock(2, 2, 3, 4), unlock(1, 1, 5, 6)), true},
		{"a lock is granted twice and never unlocked", locks(lock(1, 1, 1, 2), lock(2, 2, 3, 4)), true},
		{"a lock that was lost is granted", locks(lock(9, 1, 1, 2), lock(2, 2, 11, 12)), false},
		{"a lock is granted before it can be lost", locks(lock(9, 1, 1, 2), lock(2, 2, 3, 4)), true},
		{"a lost lock is unlocked", locks(lock(9, 1, 1, 2), lock(2, 2, 11, 12), unlock(9, 1, 13, 14)), true},
		{"a lost lock is not unlocked", locks(lock(9, 1, 1, 2), lock(2, 2, 11, 12), lost(unlock(9, 1, 13, 14))), false},
		{"a lock is lost without reason", locks(lock(1, 1, 1, 2), lost(unlock(1, 1, 13, 14))), true},
		{"an open unlock", locks(lock(1, 1, 1, 2), open(unlock(1, 1, 3, 0)), lock(2, 2, 5, 6)), false},
		{"busy", locks(lock(1, 1, 1, 2), at(2, 2, op(busy, 3, 4, "")), unlock(1, 1, 5, 6)), false},
		{"busy while it is free", locks(lock(1, 1, 1, 2), unlock(1, 1, 3, 4), at(2, 2, op(busy, 5, 6, ""))), true},
		{"busy by a claim unknown", locks(excused(at(2, 2, op(busy, 5, 6, "")))), false},

		{"tenures", tenures(tenure{"a", 1, 5, 1, 2}, tenure{"a", 2, 6, 2, noEnd}, tenure{"b", 2, 3, 1, noEnd}), false},
		{"two holders", tenures(tenure{"a", 1, 5, 1, 3}, tenure{"a", 2, 6, 2, 4}), true},
		{"two holders, not one after the other", tenures(tenure{"a", 1, 5, 1, 9}, tenure{"a", 1, 6, 9, 9}, tenure{"a", 2, 7, 8, 10}), true},
		{"a fence goes back", tenures(tenure{"a", 1, 5, 1, 2}, tenure{"a", 2, 4, 3, 4}), true},
		{"a fence stays", tenures(tenure{"a", 1, 5, 1, 2}, tenure{"a", 1, 5, 3, 4}), true},
	} {
		if wrong := len(test.faults) > 0; wrong != test.wrong {
			t.Errorf("%s: found wrong is %v\n%s", test.name, wrong, strings.Join(test.faults, "\n"))
		}
	}
}

// A lock may be found held by the claim of a call that has lost its session and goes on in the
// next, and by nothing else that nobody knows of.
func TestLinearBusyByALostClaim(t *testing.T) {
	at := func(k kind, node int, holding, call, ret int64) operation {
		return operation{kind: k, node: node, key: "lock/a", holding: holding, call: call, ret: ret, from: time.Duration(call), to: time.Duration(ret)}
	}
	open := func(o operation) operation { o.open, o.ret = true, math.MaxInt64; return o }
	long := window{from: 2, to: 8}
	between := []operation{at(locked, 2, 4, 4, 5), at(unlocked, 2, 4, 6, 7)}
	// granted after those between
	slow := []operation{at(locked, 1, 1, 1, 10), at(unlocked, 1, 1, 11, 12)}
	for _, test := range []struct {
		name  string
		cut   window // of node 1
		ops   []operation
		wrong bool
	}{
		{"a lock that is granted later", long, append(slow, at(busy, 0, 2, 2, 3)), false},
		{"one that is found held later", long, []operation{at(busy, 1, 1, 1, 10), at(busy, 0, 2, 2, 3)}, false},
		{"no session can have been lost", window{from: 2, to: 3}, append(slow, at(busy, 0, 2, 2, 3)), true},
		{"the call is over", long, append(slow, at(busy, 0, 13, 13, 14)), true},
		{"the call has not begun", long, append(slow, at(busy, 0, -1, -1, 0)), true},
		{"its node stops before it hears of the loss", long, []operation{
			at(locked, 1, 1, 1, 2), at(busy, 1, 9, 9, 10), open(at(unlocked, 1, 1, 11, 12)),
		}, false},
		{"its node has stopped", long, []operation{
			at(locked, 1, 1, 1, 2), open(at(unlocked, 1, 1, 11, 12)), at(busy, 0, 13, 13, 14),
		}, true},
		{"no other call", long, []operation{at(busy, 1, 9, 9, 10)}, true},
	} {
		h := history{lease: 10, cuts: [][]window{nil, {test.cut}, nil}, ops: slices.Concat(test.ops, between)}
		if faults, _ := h.judge(); len(faults) > 0 != test.wrong {
			t.Errorf("%s: found wrong is %v\n%s", test.name, len(faults) > 0, strings.Join(faults, "\n"))
		}
	}
}

// A process that ends has no role any more, and those of others go on.
func TestHoldersOfADeadProcess(t *testing.T) {
	h := new(holders)
	h.begin("a", 1, 1, func() time.Duration { return 1 })
	h.begin("b", 2, 1, func() time.Duration { return 1 })
	h.died(1, 5)
	h.begin("a", 2, 2, func() time.Duration { return 5 })
	if faults := h.check(); len(faults) > 0 {
		t.Errorf("after its end: %v", faults)
	}
	h.begin("b", 3, 2, func() time.Duration { return 5 })
	if faults := h.check(); len(faults) != 1 {
		t.Errorf("a role of another process: %v, want one fault", faults)
	}
	if a, late := h.since("a", 0), h.since("a", 5); a != 2 || late != 1 {
		t.Errorf("%d tenures of a, %d of them late; want 2 and 1", a, late)
	}
}
